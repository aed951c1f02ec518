"""The demo of depth: its rooms are exact, the whole path runs in small, and the figures hold."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets.own.description_file import read_description
from pipelines.config import DemoConfig
from pipelines.demo.depth import DepthDemoSize, features_of_other_rooms, run_depth_demo
from pipelines.demo.made.rooms import FARTHEST_M, NEAREST_M, make_room, pattern_at, write_rooms
from pipelines.errors import UsageError
from pipelines.feed.joined_stores import JoinedStores

TINY = DepthDemoSize(training_images=8, test_images=3, max_steps=2)


def test_a_room_follows_from_its_split_and_number(tmp_path: Path) -> None:
    digests = {
        split: [hashlib.sha256(make_room(split, n).rgb.tobytes()).hexdigest() for n in range(6)]
        for split in ("train", "test")
    }
    assert len({*digests["train"], *digests["test"]}) == 12
    assert hashlib.sha256(make_room("test", 2).rgb.tobytes()).hexdigest() == digests["test"][2]
    write_rooms(tmp_path, {"test": 2})
    with Image.open(tmp_path / "depths/test/room0001.png") as stored:
        assert np.array_equal(np.asarray(stored), make_room("test", 1).depth)


def test_depth_is_that_of_the_geometry() -> None:
    """The floor's depth falls with the row as 1 / row; what is measured lies in range; walls are flat."""
    assert pattern_at(NEAREST_M) != pattern_at(FARTHEST_M)
    for number in range(8):
        depth = make_room("train", number).depth.astype(float) / 1000
        measured = depth[depth > 0]
        assert measured.min() > 0.5 and measured.max() <= FARTHEST_M
        last = depth[-1][depth[-1] > 0]
        if len(np.unique(last)) == 1:  # the floor alone, without a board
            column = depth[:, int(np.flatnonzero(depth[-1] > 0)[0])]
            floor = column[(column > 0) & (column < column.max() - 1e-9)][-10:]
            slopes = np.diff(1 / floor)
            assert slopes == pytest.approx(np.full(len(slopes), slopes.mean()), rel=0.1)


def test_features_of_other_rooms_last_as_long_as_asked() -> None:
    before = JoinedStores.read_targets
    with pytest.raises(ValueError, match="stop"), features_of_other_rooms(0):
        assert JoinedStores.read_targets is not before
        raise ValueError("stop")
    assert JoinedStores.read_targets is before


@pytest.mark.ci
def test_the_whole_path_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "demo"
    found = run_depth_demo(DemoConfig(run=str(root), dataset="depth"), TINY)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"RMSE {found['rmse']:.3f} m (single) depth-linear, 3 rooms kept apart")
    assert read_description(root / "rooms.yaml").layout == "depth"
    with (root / "table.csv").open(newline="") as file:
        table = {name: cells for name, *cells in csv.reader(file)}
    assert float(table["RMSE in m"][2]) == pytest.approx(found["rmse_mean_map"], abs=1e-3)
    with Image.open(root / "depths.png") as picture:
        assert min(picture.size) > 300


def test_an_unknown_head_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="depth-linear"):
        run_depth_demo(DemoConfig(run=str(tmp_path / "demo"), head="bifpn1", dataset="depth"), TINY)
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_held_out_rooms(tmp_path: Path) -> None:
    """At most half the error of the mean depth map, and well below that on features of other rooms."""
    found = run_depth_demo(DemoConfig(run=str(tmp_path / "demo"), dataset="depth"), DepthDemoSize())
    names = ("rmse", "rmse_mean_map", "rmse_features_of_other_rooms")
    print("\nFIGURE", " ".join(f"{name} {found[name]:.3f}" for name in names))
    assert found["rmse"] <= 0.5 * found["rmse_mean_map"]
    assert found["rmse"] <= 0.6 * found["rmse_features_of_other_rooms"]
