"""Fixtures of the tests of stores."""

from pathlib import Path

import pytest

from stores.format.plan import Bin
from tests.faults.made_stores import P4, P5, MadeRows, extract, small_plan
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this folder

ONE_BIN = (Bin(height_px=64, width_px=64, rows=12, shard_rows=4),)
SKIPPED = frozenset({(0, 5)})


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
