"""The examples of docs/python.md run, in their order, in one session."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config import ScheduleConfig, TrainConfig
from pipelines.verbs import train_head
from tests.pipelines.extracted import extract_store, write_coloured_data

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
TRAINING, VALIDATION = (
    f"features/ade20k-{split}-swinv2-b-int8-{digest}"
    for split, digest in (("training", "1f3a9c2e"), ("validation", "9c0d4e71"))
)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the stores and the run that the document names, made by the bundled backbone."""
    data = write_coloured_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    for split, name in (("training", TRAINING), ("validation", VALIDATION)):
        shutil.move(extract_store(data, tmp_path / "made", "int8", split), name)
    shutil.move("made/weights.json", "features/weights.json")
    train_head.run(
        TrainConfig(
            head="linear",
            store=(TRAINING,),
            val_store=VALIDATION,
            run="runs/ade20k-linear",
            max_steps=2,
            batch_size=4,
            schedule=ScheduleConfig(warmup_steps=0),
            device="cpu",
        )
    )


def test_every_example_runs(session: None) -> None:
    names: dict[str, Any] = {"__name__": "python_doc"}
    assert len(EXAMPLES) == 9
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"docs/python.md, example {number}", "exec"), names)
    assert names["level"]["q"].attrs["decode"] == "value = q * scale"
    first = np.moveaxis(names["store"].read_features(0, ["p4"])["p4"][0], 0, -1)
    np.testing.assert_array_equal(names["value"][0].values, first)
    assert names["trainer"].global_step == 6
    assert 0 <= float(names["best"].best_model_score) <= 1
    assert len(names["history"]) == 12
    assert sum(names["history"][-3:]) < sum(names["history"][:3])
    assert names["batch"].features and len(names["batch"].keys) == 4
    assert names["scores"].shape == (150, 48, 64) and names["scores"].dtype == torch.float32
    assert names["classes"].shape == (48, 64)


def test_the_dataset_has_ten_lines() -> None:
    (example,) = [each for each in EXAMPLES if "class StoreDataset" in each]
    body = example[example.index("class StoreDataset") :].strip().splitlines()
    assert sum(bool(line.strip()) for line in body) <= 10
