"""`predict`: runs the frozen backbone and the trained head on new images or videos."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipelines.config import PredictConfig
from pipelines.errors import SPACE, UsageError, WorkFailed, exit_code
from pipelines.live.person_boxes import PersonBoxes, open_boxes
from pipelines.live.predict_sources import list_sources
from pipelines.live.run_model import RunModel, load_run
from pipelines.next_step import command, print_next
from pipelines.runs.head_file import is_head_file, record_of
from pipelines.tasks import task_for
from pipelines.tasks.contract import Task

logger = logging.getLogger(__name__)

MAX_LISTED = 20


def run(config: PredictConfig) -> dict[str, Any]:
    """Writes, for each source, what its task makes of a prediction (`Task.write_prediction`) under the output
    folder. A source that cannot be predicted, whatever the reason, is listed and left out.

    Raises UsageError where the input holds no source; OSError where the disk is full; WorkFailed
    at the end, where no source could be predicted or more than `max_failed` could not.
    """
    run_path = Path(config.run)
    record = record_of(run_path)
    task = _with_boxes(config, task_for(record.identity["dataset"]))
    beside = run_path.with_suffix("") if is_head_file(run_path) else run_path
    folder = Path(config.out) if config.out else beside / "predictions"
    sources = list_sources(Path(config.input), task.source_kind, task.source_endings, written_to=folder)
    model = load_run(config.run, weights=config.weights, device=config.device, checkpoint=config.checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = [], {}
    for name, path in sources:
        try:
            done.append(_write(task, model, path, folder, name))
        except Exception as error:  # decoders, torch and drivers raise what they like
            if exit_code(error) == SPACE:  # of every other source too
                raise
            failed[str(path)] = reason = _reason(error)
            logger.warning("skipping %s: %s", path, reason, exc_info=logger.isEnabledFor(logging.DEBUG))
        else:
            logger.info("%s: %s", path, task.describe_prediction(done[-1]))
            continue
        _free_memory()
    return _report(config, task.source_kind, folder, done, failed)


def _with_boxes(config: PredictConfig, task: Task) -> Task:
    """The task, which looks for persons where `--boxes` says. Raises UsageError for one that does not."""
    if config.boxes is None:
        return task
    with_boxes: Callable[[PersonBoxes], Task] | None = getattr(task, "with_boxes", None)
    if with_boxes is None:
        raise UsageError(f"--boxes {config.boxes}: the run is not one of poses, and looks for no persons")
    return with_boxes(open_boxes(config.boxes, {"device": config.device}))


def _write(task: Task, model: RunModel, path: Path, folder: Path, name: str) -> dict[str, Any]:
    """Predicts one source. Its files appear together and whole, the JSON first: the next run
    knows by it that a picture is no source."""
    with TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        summary = task.write_prediction(model, path, Path(partial) / name)
        for made in sorted(Path(partial).iterdir(), key=lambda file: (file.suffix != ".json", file.name)):
            os.replace(made, folder / made.name)
    return summary


def _reason(error: Exception) -> str:
    """One line for people. Torch's errors have a stack of C++ in them."""
    text = next(iter(str(error).strip().splitlines()), "")[:300]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return f"out of memory{f' ({text})' if text else ''}"
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _report(
    config: PredictConfig,
    kind: str,
    folder: Path,
    done: Sequence[dict[str, Any]],
    failed: dict[str, str],
) -> dict[str, Any]:
    for path, reason in list(failed.items())[:MAX_LISTED]:
        print(f"  skipped   {path}: {reason}")
    if len(failed) > MAX_LISTED:
        print(f"  skipped   {len(failed) - MAX_LISTED} more: see the log, or --json")
    print(f"{len(done)} {kind} predicted into {folder}" + (f", {len(failed)} skipped" if failed else ""))
    summary = {"out": str(folder), kind: list(done), "failed": failed}
    sources = len(done) + len(failed)
    allowed = max(10, sources // 100) if config.max_failed is None else config.max_failed
    if not done:
        raise WorkFailed(f"none of the {sources} {kind} under {config.input} could be predicted", summary)
    if len(failed) > allowed:
        raise WorkFailed(
            f"{len(failed)} of {sources} {kind} could not be predicted, more than --max-failed {allowed}; "
            f"the others are in {folder}",
            summary,
        )
    pictures = sorted(folder.glob("*.overlay.png")) or sorted(folder.glob("*.png"))
    print_next(command("report", run=config.run), *pictures[:1])
    return summary
