"""A codec of another package that is fitted to data: planned, extracted, resumed, opened, decoded, trained
on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from extract.extractor import fit_codec
from stores import open_store, verify_store
from tests.contracts.installed import installed, write_package
from tests.contracts.toy_codecs import ENTRY_POINTS, MODULES
from tests.pipelines.extraction.verb import TRAINING, result
from tests.unfinished import forget, receipts_of


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_package(tmp_path_factory.mktemp("toys"), "toy-codecs", MODULES, ENTRY_POINTS)
    with installed(folder):
        yield folder


def test_a_fitted_codec_goes_all_the_way(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--codec", "fit2", "--shard-rows", "2"]
    code, planned, _, err = result(capsys, "plan", *words)
    assert code == 0, err
    code, summary, _, err = result(capsys, "extract", *words)
    assert code == 0, summary
    assert summary["rows_written"] == TRAINING
    path = Path(summary["store"])
    files = sum(file.is_file() and file.parent.name != "log" for file in path.rglob("*"))
    assert files == planned["files"] + 2 * 2 * 2 + 4, "mean and step of two levels, and four groups"
    for receipt in receipts_of(path):
        for level in ("p4", "p5"):
            assert 0.005 < receipt["errors"][level]["median"] < 0.06, "the state is that of these features"
    with open_store(path) as store:
        before = store.read_features(range(len(store)))
        assert store.plan.codec_state is not None
        encoded = store.read_encoded([0])["p5"]["q"].astype(np.float32)
        state = store.plan.codec_state["p5"]
        by_hand = np.moveaxis(encoded * state["step"] + state["mean"], -1, 1)
        np.testing.assert_array_equal(before["p5"][:1], by_hand)
    forget(path, "64x64-1")
    monkeypatch.setattr(fit_codec, "_loaded_rows", lambda *_: pytest.fail("fitted again"))
    assert result(capsys, "extract", *words)[0] == 0
    with open_store(path) as store:
        after = store.read_features(range(len(store)))
    for level, x in before.items():
        np.testing.assert_array_equal(after[level], x)
    assert verify_store(path, full=True).ok
