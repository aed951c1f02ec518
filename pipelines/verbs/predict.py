"""`predict`: the frozen backbone and the trained head of a run on new images or videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from extract.sources.byte_sources import SourceError
from pipelines.config import PredictConfig
from pipelines.errors import UsageError, WorkFailed
from pipelines.live.run_model import load_run
from pipelines.runs.run_folder import read_run
from pipelines.tasks import task_of

logger = logging.getLogger(__name__)


def run(config: PredictConfig) -> dict[str, Any]:
    """Writes, for each source, what its task makes of a prediction (`Task.write_prediction`) under the output
    folder. A source that cannot be read is reported and left out.

    Raises UsageError where the input holds no source, WorkFailed where none of them could be read.
    """
    task = task_of(read_run(Path(config.run)).task)
    sources = list_sources(Path(config.input), task.source_kind, task.source_endings)
    folder = Path(config.out) if config.out else Path(config.run) / "predictions"
    model = load_run(config.run, weights=config.weights, device=config.device)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = [], {}
    for name, path in sources:
        try:
            done.append(task.write_prediction(model, path, folder / name))
        except (SourceError, OSError) as error:
            failed[str(path)] = str(error)
            logger.warning("%s is left out: %s", path, error)
            continue
        logger.info("%s: %s", path, task.describe_prediction(done[-1]))
    kind = task.source_kind
    print(f"{len(done)} {kind} predicted into {folder}" + (f", {len(failed)} left out" if failed else ""))
    if not done:
        raise WorkFailed(f"none of the {len(sources)} {kind} under {config.input} could be read")
    return {"out": str(folder), kind: done, "failed": failed}


def list_sources(source: Path, kind: str, endings: Sequence[str]) -> list[tuple[str, Path]]:
    """The sources of a file or folder, those below it too, with a name for the output of each.

    A name is the path below the folder with its separators turned to `__`; sources that differ in their
    ending alone keep it. Raises UsageError where there are none.
    """
    if source.is_file():
        return [(source.stem, source)]
    if not source.is_dir():
        raise UsageError(f"--input {source}: there is no such file or folder")
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not paths:
        raise UsageError(f"--input {source}: no {kind} there (looked for {' '.join(endings)})")
    return list(zip(_unique_names(source, paths), paths, strict=True))


def _unique_names(folder: Path, paths: list[Path]) -> Iterator[str]:
    stems = ["__".join(path.relative_to(folder).with_suffix("").parts) for path in paths]
    for stem, path in zip(stems, paths, strict=True):
        yield stem if stems.count(stem) == 1 else stem + path.suffix
