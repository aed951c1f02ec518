"""A linear head trained for two steps on made images."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import ScheduleConfig, TrainConfig
from pipelines.verbs import train_head
from tests.pipelines.extracted import extract_store, write_coloured_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured_data(tmp_path_factory.mktemp("trained"), training=4, validation=1)


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A run of its own for each file of tests, with the figures of an evaluation."""
    folder = data.parent
    extract_store(data, folder / "features", "int8", "training")
    train_head.run(
        TrainConfig(
            head="linear",
            stores=str(folder / "features"),
            run=str(folder / "run"),
            max_steps=2,
            batch_size=2,
            schedule=ScheduleConfig(warmup_steps=0),
            device="cpu",
        )
    )
    (folder / "run" / "evaluate.json").write_text('{"miou": 0.31234567, "records": 4, "views": "single"}')
    return folder / "run"
