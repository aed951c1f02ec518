"""The progress of several processes in one line."""

import json
import os
import threading
from dataclasses import asdict, replace

import pytest

from extract.extractor.progress import Progress
from pipelines.engines.process_progress import PIPE, TogetherProgress, extraction_progress, receiving

MOMENT = Progress(
    rows_done=3,
    rows_total=20,
    failed_records=1,
    shards_done=1,
    shards_total=10,
    finished_shard="64x64-0",
    seconds=2.0,
    bytes_written=100,
    bottleneck="decode",
)


def test_processes_are_added_up() -> None:
    """What the later process finds to do is less than the whole, and shrinks as the other finishes shards."""
    seen: list[Progress] = []
    together = TogetherProgress(seen.append)
    together.take("0", MOMENT)
    together.take("1", replace(MOMENT, rows_total=17, shards_total=9, seconds=1.0, bottleneck="write"))
    together.take("1", replace(MOMENT, rows_done=6, rows_total=14, shards_done=2, bottleneck="write"))
    last = seen[-1]
    assert (last.rows_done, last.rows_total) == (9, 20)
    assert (last.shards_done, last.shards_total) == (3, 10)
    assert (last.failed_records, last.seconds, last.bytes_written) == (1, 2.0, 200)
    assert last.images_per_s == 4.5 and last.seconds_left == pytest.approx(11 / 4.5)


def test_a_process_sends_through_its_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing, environment = receiving({"A": "b"})
    assert environment["A"] == "b"
    monkeypatch.setenv(PIPE, environment[PIPE])
    seen: list[Progress] = []
    reader = threading.Thread(target=TogetherProgress(seen.append).read, args=("0", reading))
    reader.start()
    with extraction_progress("store") as show:
        show(MOMENT)
        show(replace(MOMENT, finished_shard=None))  # too soon after the first
        show(replace(MOMENT, rows_done=20))
    os.write(writing, json.dumps(asdict(MOMENT))[:20].encode())  # of a process that is killed
    os.close(writing)
    reader.join()
    assert [each.rows_done for each in seen] == [3, 20]
