"""Rows as tars: streamed by webdataset itself with the loader of docs/remote.md, equal to the store's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.__main__ import main
from stores import open_store
from tests.pipelines.made_stores import make_store

DOC = Path(__file__).parents[2] / "docs" / "remote.md"


def loader() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    assert len([line for line in code.splitlines() if line]) <= 11
    return found["int8_rows"]


def test_the_documented_loader_streams_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_store(
        tmp_path / "stores", records=10, codec_name="int8", skipped=frozenset({("training-3", 1)})
    )
    out = tmp_path / "rows"
    words = ["export", "--format", "webdataset", "--store", str(path), "--out", str(out)]
    assert main(words) == 0
    assert f"{out}: 19 rows in 1 tar," in capsys.readouterr().out
    found = list(loader()(str(out), ("p3", "p5")))
    with open_store(path) as store:
        assert [row["record"] for row in found] == list(store.keys)
        features, targets = store.read_features(range(len(store))), store.read_targets(range(len(store)))
        for number, row in enumerate(found):
            for level in ("p3", "p5"):
                np.testing.assert_array_equal(row[level], features[level][number].transpose(1, 2, 0))
            np.testing.assert_array_equal(row["labels"], targets[number]["labels"])
    assert main(words) == 2 and "new or an empty folder" in capsys.readouterr().err
    assert main(["export", "--format", "webdataset", "--out", str(tmp_path / "x")]) == 2
    assert main(["export", "--out", str(tmp_path / "x.safetensors")]) == 2


def test_the_same_rows_give_the_same_tars(tmp_path: Path) -> None:
    path = make_store(tmp_path / "stores", records=4, codec_name="float16")
    for name in ("a", "b"):
        assert (
            main(["export", "--format", "webdataset", "--store", str(path), "--out", str(tmp_path / name)])
            == 0
        )
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert a == b
