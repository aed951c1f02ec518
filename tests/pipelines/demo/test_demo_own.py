"""The demo of own data in small: from a folder of images and masks to a table and a picture of own names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets.own.description_file import read_description
from pipelines.config import DemoConfig
from pipelines.demo.own import CLASS_NAMES, OwnDemoSize, run_own_demo, write_garden
from pipelines.errors import UsageError

TINY = OwnDemoSize(training_images=8, test_images=2, views=1, epochs=1, width=16)


@pytest.mark.ci
def test_from_a_folder_to_a_picture_with_own_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "demo"
    first = run_own_demo(DemoConfig(run=str(root), dataset="own"), TINY)
    assert capsys.readouterr().out.splitlines()[-1].startswith("mIoU ")
    described = read_description(root / "garden.yaml")
    assert described.class_names == CLASS_NAMES and described.training == ("train",)
    with (root / "table.csv").open(newline="") as file:
        table = {name: cells for name, *cells in csv.reader(file)}
    assert set(table) == {"IoU in %", *CLASS_NAMES, "mIoU", "pixel accuracy", "training seconds"}
    with Image.open(root / "predictions.png") as picture:
        assert min(picture.size) > 300
    again = run_own_demo(DemoConfig(run=str(root), dataset="own"), TINY)
    assert again["stores"] == first["stores"]


def test_the_garden_is_the_same_in_every_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_garden(tmp_path / name, {"train": 2})
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 5
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    with Image.open(tmp_path / "a/masks/train/garden0000.png") as mask:
        assert np.asarray(mask).max() < len(CLASS_NAMES)


def test_an_unknown_head_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bifpn1"):
        run_own_demo(DemoConfig(run=str(tmp_path / "demo"), head="bifpn77", dataset="own"), TINY)
    assert not (tmp_path / "demo").exists()
