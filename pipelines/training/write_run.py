"""The folder of a run: made for a new run, checked for a resumed one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from heads.index import find_head
from pipelines.catalog.known_weights import first_known_weights
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import TrainingData
from pipelines.runs import run_folder as runs
from pipelines.training.build_module import head_revision
from pipelines.training.module import HeadModule


def record_of(config: TrainConfig, data: TrainingData, module: HeadModule) -> runs.RunRecord:
    """What a run is made from."""
    return runs.RunRecord(
        head=config.head,
        head_settings=dict(config.head_settings),
        pyramid=data.pyramid.select(module.head.levels).to_json(),
        identity=dict(data.identity),
        stores=data.stores,
        stores_folder=str(Path(config.stores).resolve()),
        weights=config.weights or _known_weights(config, data),
        data=str(Path(config.data).resolve()) if config.data else None,
        verify=config.verify,
        versions=runs.package_versions(),
        head_package=find_head(config.head, module.head.task).package,
        head_revision=head_revision(config, module.head.task),
    )


def _known_weights(config: TrainConfig, data: TrainingData) -> str | None:
    """What --weights was when the store was extracted, if that was noted beside it."""
    digest = data.identity["backbone"]["weights_sha256"]
    folders = [Path(config.stores), *(Path(store.path).parent for store in data.stores)]
    return first_known_weights(folders, digest)


def write_run_folder(config: TrainConfig, data: TrainingData, record: runs.RunRecord) -> Path:
    """Makes the folder of a new run, or checks that of a run that is resumed."""
    if config.resume:
        folder = Path(config.run or "")
        runs.check_resumable(runs.read_run(folder), record)
    else:
        folder = runs.new_run_folder(config.run, data.name, config.head)
    runs.write_run(folder, _with_its_stores(config, data), record)
    return folder


def _with_its_stores(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with the stores that were chosen, so that a resumed run finds no others."""
    return config if config.online else dataclasses.replace(config, store=tuple(s.path for s in data.stores))
