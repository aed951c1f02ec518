"""The folder of a run: made for a new run, checked for a resumed one."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from heads.index import find_head
from pipelines.catalog.known_weights import first_known_weights
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import TrainingData
from pipelines.runs import run_folder as runs
from pipelines.runs.checkpoint_files import forget_best, read_best
from pipelines.runs.load_checkpoint import checkpoint_to_resume
from pipelines.runs.new_run import UnbegunRun
from pipelines.runs.run_lock import RunLock
from pipelines.runs.settings_history import (
    changed_settings,
    history_comment,
    read_history,
    with_change,
    write_history,
)
from pipelines.training.build_module import head_revision
from pipelines.training.module import HeadModule
from stores.remote.store_url import store_path

logger = logging.getLogger(__name__)


def record_of(config: TrainConfig, data: TrainingData, module: HeadModule) -> runs.RunRecord:
    """What a run is made from."""
    return runs.RunRecord(
        head=config.head,
        head_settings=dict(config.head_settings),
        pyramid=data.pyramid.select(module.head.levels).to_json(),
        identity=dict(data.identity),
        stores=data.stores,
        stores_folder=str(_stores_folder(config, data).resolve()),
        weights=config.weights or _known_weights(config, data),
        data=str(Path(config.data).resolve()) if config.data else None,
        verify=config.verify,
        versions=runs.package_versions(),
        head_package=find_head(config.head, module.head.task).package,
        head_revision=head_revision(config, module.head.task),
    )


def _stores_folder(config: TrainConfig, data: TrainingData) -> Path:
    """Where test stores are looked for: --stores, or the folder of the training store where that is gone."""
    folder = store_path(config.stores)
    return store_path(data.stores[0].path).parent if data.stores and not folder.is_dir() else folder


def _known_weights(config: TrainConfig, data: TrainingData) -> str | None:
    """What --weights was when the store was extracted, if that was noted beside it."""
    digest = data.identity["backbone"]["weights_sha256"]
    folders = [store_path(config.stores), *(store_path(store.path).parent for store in data.stores)]
    return first_known_weights(folders, digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedRun:
    """The folder of a run that this process may write."""

    folder: Path
    checkpoint: Path | None
    """To resume from; None to begin at step 0."""
    lock: RunLock


def open_run_folder(config: TrainConfig, data: TrainingData, opened: ExitStack) -> OpenedRun:
    """Makes the folder of a new run, or finds that of a run that is resumed, and locks it.

    Args:
        opened: holds the lock; removes a new run that is refused before it began.

    Raises RunLocked where another process writes the run, DamagedCheckpoint where nothing can be resumed.
    """
    if config.resume:
        folder = Path(config.run or "")
        runs.read_run(folder)
        lock = opened.enter_context(RunLock(folder, take_over=config.take_over))
        return OpenedRun(folder=folder, checkpoint=checkpoint_to_resume(folder), lock=lock)
    new = opened.enter_context(UnbegunRun(config.run, data.name, config.head))
    lock = opened.enter_context(RunLock(new.folder, take_over=config.take_over))
    if config.run is not None:
        runs.refuse_other_run(new.folder)  # one that began since
    new.is_ours = True
    return OpenedRun(folder=new.folder, checkpoint=None, lock=lock)


def write_run_folder(run: OpenedRun, config: TrainConfig, data: TrainingData, record: runs.RunRecord) -> None:
    """Records a new run, or what a resumed one changes.

    Raises IdentityError, before anything is written, where a resumed run would change what it must keep.
    """
    config = _with_its_stores(config, data)
    if not config.resume:
        runs.write_run(run.folder, config, record)
        return
    before = runs.read_run(run.folder)
    runs.check_resumable(before, record)
    changed = {**changed_settings(run.folder, config), **_changed_versions(before, record)}
    step = runs.step_of(run.checkpoint) if run.checkpoint else 0
    for name, (old, new) in changed.items():
        logger.info("from step %d: %s %s (before: %s)", step, name, new, old)
    best = read_best(run.folder)
    if changed and best is not None and best.step > step:
        forget_best(run.folder)  # of steps that are trained again, otherwise
    history = with_change(read_history(run.folder), step, changed)
    write_history(run.folder, history)
    runs.write_run(run.folder, config, record, comment=history_comment(history))


def _changed_versions(before: runs.RunRecord, now: runs.RunRecord) -> dict[str, tuple[str | None, str]]:
    return {
        f"versions.{name}": (before.versions.get(name), version)
        for name, version in now.versions.items()
        if before.versions.get(name) != version
    }


def _with_its_stores(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with the stores that were chosen, so that a resumed run finds no others."""
    return config if config.online else dataclasses.replace(config, store=tuple(s.path for s in data.stores))
