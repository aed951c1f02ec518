"""The benchmark against hand-written stores: rivals read what they wrote, and its quick form runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.against.stores import STORES, installed, sync_tree

PROJECT = Path(__file__).parents[2]
ROWS = 5


@pytest.mark.parametrize("name", STORES)
def test_a_rival_reads_what_it_wrote(name: str, tmp_path: Path) -> None:
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    rng = np.random.default_rng(0)
    arrays = {
        "p4_q": rng.integers(-127, 128, (ROWS, 4, 4, 8), dtype=np.int8),
        "p4_scale": rng.random((ROWS, 8), dtype=np.float32),
    }
    store = STORES[name](tmp_path, ROWS)
    store.put(0, {key: array[:3] for key, array in arrays.items()})
    store.put(3, {key: array[3:] for key, array in arrays.items()})
    store.close()
    sync_tree(tmp_path)
    order = list(range(ROWS)) if name == "webdataset" else [4, 0, 3, 1, 2]
    for row, found in zip(order, STORES[name].read(tmp_path, order), strict=True):
        assert found.keys() == arrays.keys()
        for key, array in arrays.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_array_equal(found[key], array[row])


@pytest.mark.ci
def test_the_quick_form_times_us_and_a_rival(tmp_path: Path) -> None:
    words = [
        "--quick",
        "--model",
        "swinv2-nano",
        "--rivals",
        "memmap",
        "--json",
        str(tmp_path / "found.json"),
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.against",
            *words,
            "--folder",
            str(tmp_path),
            "--json",
            str(tmp_path / "found.json"),
        ],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"].keys() == {"permafrost", "memmap int8", "memmap float16"}
    for columns in found["runs"].values():
        assert all(run["seconds"] > 0 for run in columns["fsync"] + columns["no fsync"])
    assert "reading: " in done.stdout and "| memmap int8 |" in done.stdout
