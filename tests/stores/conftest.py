"""Fixtures of the tests of stores."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores.layout import Bin
from tests.faults.made_stores import P4, P5, MadeRows, extract, small_plan

ONE_BIN = (Bin(height_px=64, width_px=64, rows=12, shard_rows=4),)
SKIPPED = frozenset({(0, 5)})


@pytest.fixture(scope="module", autouse=True)
def unsynced() -> Iterator[None]:
    """No test here cuts the power, and waiting for the disk is most of what small stores cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(scope="module")
def rows() -> MadeRows:
    return MadeRows(small_plan(bins=ONE_BIN, levels=(P4, P5), pixels=True), skipped=SKIPPED)


@pytest.fixture(scope="module")
def path(rows: MadeRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one-bin")
    extract(root, rows)
    return root / rows.plan.folder_name


@pytest.fixture
def own_path(rows: MadeRows, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    extract(tmp_path, rows)
    return tmp_path / rows.plan.folder_name
