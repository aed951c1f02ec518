"""`extract --retry-skipped`: a second store that has the skipped rows too, beside the untouched first one."""

import shutil
from pathlib import Path

import pytest

import pipelines.catalog.stores
from extract.decoding.decoder_pool import DecoderPool
from extract.extractor.run import extract
from extract.sources.byte_sources import DecoderLost
from pipelines.catalog.stores import StoreQuery, find_store
from stores import open_store, verify_store
from stores.format.row_table import UNDECODABLE
from tests.extract.extractor.extraction import row_digests, skipped
from tests.faults.outcomes import store_files
from tests.pipelines.extraction.verb import TRAINING, result


@pytest.fixture
def once_ill(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One image ends its decoder, as long as the list is not empty."""
    ill, render, asked = [True], DecoderPool.render_image, list[bytes]()

    def fail(self: DecoderPool, data: bytes, *rest: object) -> object:
        if not asked:
            asked.append(data)
        if ill and data == asked[0]:
            raise DecoderLost(UNDECODABLE, "the decoder had no memory left")
        return render(self, data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DecoderPool, "render_image", fail)
    return ill


def test_skipped_rows_are_tried_again_beside_the_old_store(
    words: list[str],
    once_ill: list[bool],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*words, "--shard-rows", "2", "--workers", "1"]
    code, summary, _, _ = result(capsys, "extract", *words, "--retry-skipped")
    assert code == 2 and "is not complete; first run" in summary["error"]
    assert not (tmp_path / "features").exists()
    _, first, _, _ = result(capsys, "extract", *words)
    old = Path(first["store"])
    assert len(skipped(old)) == 1
    before, old_rows = store_files(old), row_digests(old)
    once_ill.clear()

    code, second, out, _ = result(capsys, "extract", *words, "--retry-skipped")
    new = Path(second["store"])
    assert code == 0 and new != old and store_files(old) == before
    assert (second["rows_written"], second["shards_written"]) == (2, 1), "the others are copied"
    assert f"{TRAINING} rows, 0 skipped" in out
    rows = row_digests(new)
    assert len(rows) == TRAINING and old_rows.items() < rows.items()
    assert skipped(new) == {} and verify_store(new, full=True).ok
    with open_store(old) as a, open_store(new) as b:
        assert b.identity == {**a.identity, "retry_of": a.manifest_digest}
    query = StoreQuery(purpose="training", dataset="ade20k")
    assert find_store(tmp_path / "features", query).path == new, "the store with fewer gaps is meant"
    monkeypatch.setattr(pipelines.catalog.stores, "list_stores", list_stores_of(old))
    assert find_store(tmp_path / "features", query).path == old

    code, again, out, _ = result(capsys, "extract", *words, "--retry-skipped")
    assert (code, again["done_before"]) == (0, True) and f"{new} is complete: nothing to do" in out
    shutil.rmtree(old)
    monkeypatch.undo()
    code, other, _, _ = result(capsys, "extract", *words)
    assert row_digests(Path(other["store"])) == rows, "as if nothing had been skipped"
    code, summary, _, _ = result(capsys, "extract", *words, "--retry-skipped")
    assert code == 2 and "has no skipped rows" in summary["error"]


def list_stores_of(path: Path):  # type: ignore[no-untyped-def]
    listed = pipelines.catalog.stores.list_stores

    def only(folder: Path) -> list[pipelines.catalog.stores.FoundStore]:
        return [store for store in listed(folder) if store.path == path]

    return only


def test_a_retry_that_was_interrupted_continues(
    words: list[str],
    once_ill: list[bool],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the copies, and before the skipped rows."""
    words = [*words, "--shard-rows", "2", "--workers", "1"]
    result(capsys, "extract", *words)
    once_ill.clear()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.engines.one_process.extract", interrupted)
    assert result(capsys, "extract", *words, "--retry-skipped")[0] == 130
    monkeypatch.setattr("pipelines.engines.one_process.extract", extract)
    code, summary, _, _ = result(capsys, "extract", *words, "--retry-skipped")
    assert (code, summary["shards_written"], summary["total_rows_written"]) == (0, 1, TRAINING)
    assert verify_store(summary["store"], full=True).ok
