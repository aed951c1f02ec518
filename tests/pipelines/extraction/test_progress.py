"""The live line of an extraction, on terminals and elsewhere."""

import dataclasses
import fcntl
import logging
import os
import pty
import re
import struct
import sys
import termios
from typing import Any
from unittest.mock import Mock

import pytest

from extract.extractor.progress import Progress
from pipelines.cli.progress_bar import ExtractionProgress, progress_line
from pipelines.training.callbacks import StepLog
from pipelines.training.module import HeadModule


def test_progress_on_a_terminal_and_elsewhere(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    moment = Progress(
        rows_done=3,
        rows_total=12,
        failed_records=1,
        shards_done=1,
        shards_total=4,
        finished_shard="64x64-0",
        seconds=2.0,
        bytes_written=4_000_000,
        bottleneck="decode",
    )
    with ExtractionProgress("made", on_terminal=True) as progress:
        progress(moment)
    drawn = capsys.readouterr().err
    assert (
        " 25%|" in drawn and "| 3/12, 1.5 rows/s, 6.0 s left, waits for decoding, 1 failed, 2.0 MB/s" in drawn
    )
    assert progress_line("made", moment) == (
        "made: 3 of 12 rows, 1.5 rows/s, 6.0 s left, waits for decoding, 1 failed, 2.0 MB/s; "
        "shard 64x64-0 done"
    )
    resumed = dataclasses.replace(moment, rows_before=8)
    assert progress_line("made", resumed).startswith("made: 11 of 20 rows, 1.5 rows/s, 6.0 s left")


def test_long_shards_and_slow_steps_leave_no_log_silent(caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a shard, and between logged steps, a line after each QUIET_S."""
    within = Progress(
        rows_done=0,
        rows_total=900,
        failed_records=0,
        shards_done=0,
        shards_total=1,
        finished_shard=None,
        seconds=0.0,
        bytes_written=0,
        bottleneck="backbone",
    )
    with caplog.at_level(logging.INFO), ExtractionProgress("made", on_terminal=False) as progress:
        for second in range(100):
            progress(dataclasses.replace(within, seconds=float(second), rows_done=2 * second))
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "made: 60 of 900 rows",
        "made: 120 of 900 rows",
        "made: 180 of 900 rows",
    ]


def test_slow_steps_of_a_training_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    log = StepLog(log_every=50, max_steps=100, batch_size=4, name="fpn", clock=lambda: now_s[0])
    trainer, module = Mock(global_step=0), Mock(spec=HeadModule)
    log.on_train_start(trainer, module)
    with caplog.at_level(logging.INFO):
        for step in range(1, 10):
            now_s[0] += 16.0
            trainer.global_step = step
            log.on_train_batch_end(trainer, module, None, None, step)
    assert [record.message for record in caplog.records] == [
        "fpn: first step: step 1 of 100, after 16.0 s",
        "fpn: step 3 of 100, 0.2 rows/s, 25.9 min left",
        "fpn: step 5 of 100, 0.2 rows/s, 25.3 min left",
        "fpn: step 7 of 100, 0.2 rows/s, 24.8 min left",
        "fpn: step 9 of 100, 0.2 rows/s, 24.3 min left",
    ]


@pytest.mark.parametrize(("columns", "is_drawn"), [(80, True), (0, False)])
def test_the_live_line_fits_a_terminal(
    columns: int, is_drawn: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 columns hold all of it, and one without a size, where a bar would be empty, gets lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    moment = Progress(
        rows_done=94_630,
        rows_total=946_296,
        failed_records=118,
        shards_done=1,
        shards_total=4,
        finished_shard="64x64-0",
        seconds=100.0,
        bytes_written=90_000_000_000,
        bottleneck="backbone",
    )
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        with caplog.at_level(logging.INFO), ExtractionProgress("ade20k-training-swinv2-b-int8") as progress:
            progress(moment)
        terminal.write(" end")
        terminal.flush()
        shown = b""
        while not shown.endswith(b" end"):
            shown += os.read(ours, 1 << 16)
    os.close(ours)
    speed = "946 rows/s, 15.0 min left, waits for backbone, 118 failed"
    if is_drawn:
        line = next(line for line in re.split(r"[\r\n]", shown.decode()) if "rows/s" in line)
        assert len(line) <= columns
        assert line.startswith(" 10%|") and f"94630/946296, {speed}" in line
    else:
        assert shown == b" end" and "94630 of 946296 rows, 946 rows/s, 15.0 min left" in caplog.text
