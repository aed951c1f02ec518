"""log/<writer>.jsonl of a store: written by each run, ignored by every check, spared by gc."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from stores import open_store, verify_store
from stores.work.log import WriterLog
from tests.pipelines.extraction.verb import result
from tests.unfinished import forget


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_run_has_its_log(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--shard-rows", "2"]
    store = Path(result(capsys, "extract", *words)[1]["store"])
    (first,) = (store / "log").iterdir()
    begin, *shards, end = events(first)
    assert begin["event"] == "begin" and begin["host"] == socket.gethostname() and begin["pending"] == 3
    assert [event["event"] for event in shards] == ["shard"] * 3 and end["event"] == "end"
    assert {event["shard"] for event in shards} == {"64x64-0", "64x64-1", "64x64-2"}
    assert shards[-1]["rows_done"] == 6 and shards[-1]["bytes_written"] > 0
    with open_store(store) as opened:
        digest, content = opened.manifest_digest, first.read_bytes()
    assert verify_store(store, full=True, manifest_digest=digest).ok
    assert main(["gc", "--store", str(store), "--delete"]) == 0
    assert first.read_bytes() == content
    forget(store, "64x64-1")
    monkeypatch.setattr("extract.extractor.row_loader.RowLoader.load_views", lambda *_: 1 / 0)
    assert result(capsys, "extract", *words)[0] == 1
    (second,) = set((store / "log").iterdir()) - {first}
    assert [event["event"] for event in events(second)] == ["begin", "failed"]
    assert "division by zero" in events(second)[-1]["error"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log").write_text("in the way")
    log = WriterLog(tmp_path, clock=lambda: 0.0)
    for _ in range(2):
        log.write("begin")
    assert caplog.text.count("cannot be written, the extraction continues") == 1
