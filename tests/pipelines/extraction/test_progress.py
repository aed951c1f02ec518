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

import pytest

from extract.extractor.progress import Progress
from pipelines.cli.progress_bar import ExtractionProgress, shard_line


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
    assert shard_line("made", moment) == (
        "made: 3 of 12 rows, 1.5 rows/s, 6.0 s left, waits for decoding, 1 failed, 2.0 MB/s; "
        "shard 64x64-0 done"
    )
    resumed = dataclasses.replace(moment, rows_before=8)
    assert shard_line("made", resumed).startswith("made: 11 of 20 rows, 1.5 rows/s, 6.0 s left")


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
