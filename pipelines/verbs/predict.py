"""`predict`: runs the frozen backbone and the trained head on new images or videos."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from extract.sources.byte_sources import SourceError
from pipelines.config import PredictConfig
from pipelines.errors import WorkFailed
from pipelines.live.predict_sources import list_sources
from pipelines.live.run_model import load_run
from pipelines.runs.run_folder import read_run
from pipelines.tasks import task_of

logger = logging.getLogger(__name__)


def run(config: PredictConfig) -> dict[str, Any]:
    """Writes, for each source, what its task makes of a prediction (`Task.write_prediction`) under the output
    folder. A source that cannot be read is reported and left out.

    Raises UsageError where the input holds no source, WorkFailed where none of them could be read.
    """
    record = read_run(Path(config.run))
    task = task_of(record.task, record.package("dataset", "task_package"))
    sources = list_sources(Path(config.input), task.source_kind, task.source_endings)
    folder = Path(config.out) if config.out else Path(config.run) / "predictions"
    model = load_run(config.run, weights=config.weights, device=config.device, checkpoint=config.checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = [], {}
    for name, path in sources:
        try:
            done.append(task.write_prediction(model, path, folder / name))
        except (SourceError, OSError) as error:
            failed[str(path)] = str(error)
            logger.warning("skipping %s: %s", path, error)
            continue
        logger.info("%s: %s", path, task.describe_prediction(done[-1]))
    kind = task.source_kind
    print(f"{len(done)} {kind} predicted into {folder}" + (f", {len(failed)} skipped" if failed else ""))
    if not done:
        raise WorkFailed(f"none of the {len(sources)} {kind} under {config.input} could be read")
    return {"out": str(folder), kind: done, "failed": failed}
