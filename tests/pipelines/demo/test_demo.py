"""The demo in small: from nothing to a table, a picture and a last line, and again over what is there."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.config import DemoConfig
from pipelines.demo.ade20k import DemoSize, run_demo
from pipelines.demo.made.scenes import CLASS_LABELS
from pipelines.demo.picture import COLOURS
from pipelines.errors import UsageError

TINY = DemoSize(training_scenes=8, validation_scenes=3, views=1, max_steps=2)


def test_the_whole_pipeline_runs_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "demo"
    first = run_demo(DemoConfig(run=str(root), head="bifpn1"), TINY)
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"mIoU \d+\.\d\d \(single\) bifpn1, linear \d+\.\d\d, 3 held-out scenes", last)
    assert set(first["heads"]) == {"linear", "bifpn1"}
    assert {Path(store).parent for store in first["stores"]} == {root / "features"}

    with (root / "table.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["IoU in %", "linear", "bifpn1"]
    table = {name: cells for name, *cells in rows}
    assert set(table) == {*CLASS_LABELS, "mIoU", "pixel accuracy", "training seconds"}
    assert table["mIoU"] == [f"{100 * first['heads'][head]['mIoU']:.2f}" for head in ("linear", "bifpn1")]
    with Image.open(root / "predictions.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours = {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in np.unique(pixels, axis=0)}
    assert set(COLOURS.values()) <= colours  # every class stands in the legend

    written = {path: path.stat().st_mtime_ns for path in (root / "features").rglob("*") if path.is_file()}
    again = run_demo(DemoConfig(run=str(root), head="linear"), TINY)
    assert again["stores"] == first["stores"]
    assert written == {
        path: path.stat().st_mtime_ns for path in (root / "features").rglob("*") if path.is_file()
    }
    assert again["heads"]["linear"]["run"] != first["heads"]["linear"]["run"]
    assert again["mIoU"] == pytest.approx(first["heads"]["linear"]["mIoU"], abs=1e-9)


def test_an_unknown_head_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bifpn1"):
        run_demo(DemoConfig(run=str(tmp_path / "demo"), head="bifpn77"), TINY)
    assert not (tmp_path / "demo").exists()


def test_colours_of_classes_differ() -> None:
    assert set(COLOURS) == set(CLASS_LABELS)
    assert len(set(COLOURS.values())) == len(COLOURS)
