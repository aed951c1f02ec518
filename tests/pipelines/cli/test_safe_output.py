"""Control characters of names: none reaches a terminal or a log, wherever it stands."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.catalog.skipped_rows import skipped_lines
from pipelines.cli.safe_output import OneLine, escaping_stdout
from stores.format.printable import escaped, has_control
from tests.extract.datasets.made_ade20k import write_folder
from tests.pipelines.made_stores import make_store

HOSTILE = "a\x1b[2J\r\nstatus: all is well\x9b1m"
SHOWN = r"a\x1b[2J\r\nstatus: all is well\x9b1m"


@pytest.mark.parametrize("plain", ["a b", "ä.jpg", "図", "नमस्ते", "a\u200db", "🧑\u200d🚀"])
def test_names_of_every_script_are_left_as_they_are(plain: str) -> None:
    assert escaped(plain) == plain and not has_control(plain)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\0", r"\x00"),
        ("\t\n", r"\t\n"),
        ("\x7f\x85", r"\x7f\x85"),
        ("\u2028", r"\u2028"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        (HOSTILE, SHOWN),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown and has_control(text)


def test_a_log_record_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("%(asctime)s %(message)s"))
    record = logging.LogRecord("stores", logging.INFO, "", 0, "shard %s: %s", ("x", HOSTILE), None)
    handler.handle(record)
    line, end = stream.getvalue().split("shard ")[1].split("\n")
    assert (line, end) == (f"x: {SHOWN}", "")


def test_stdout_keeps_lines_and_escapes_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with escaping_stdout():
        print("a\tb\n", "c\x1b[0m", file=sys.stdout)
        assert sys.stdout.isatty() is False
    print("d\x1b")
    assert capsys.readouterr().out == "a\tb\n c\\x1b[0m\nd\x1b\n"


def test_skipped_records_stand_on_one_line_each() -> None:
    assert skipped_lines([(HOSTILE, 0, HOSTILE)]) == [f"{SHOWN} view 0: {SHOWN}"]


def test_a_store_with_hostile_keys_stays_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an earlier release, or another program: shown escaped, not refused."""
    key = HOSTILE + "{record}"
    store = make_store(tmp_path, records=4, key=key, skipped=frozenset({(HOSTILE + "3", 1)}))
    assert main(["verify", "--store", str(store), "--full"]) == 0
    assert main(["status", "--store", str(store)]) == 0
    assert f"    {SHOWN}3 view 1: undecodable: not an image\n" in capsys.readouterr().out
    assert main(["verify", "--store", str(store), "--source", "--data", str(tmp_path / "none")]) != 0
    assert not [c for c in "".join(capsys.readouterr()) if has_control(c) and c != "\n"]


def test_names_on_the_command_line_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--store", str(tmp_path / "a\x1b[2Jb")]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err and r"a\x1b[2Jb is not a store" in err


@pytest.mark.parametrize("name", ["ADE_train_0000000\x1b[2J", "ADE_train_\n0000009", "ADE\u202e_train_9"])
def test_files_with_control_characters_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path, training=2, validation=1)
    image = next(data.rglob("images/training/*.jpg"))
    image.rename(image.with_name(f"{name}.jpg"))
    words = ["extract", "--dataset", "ade20k", "--data", str(data), "--model", "swinv2-nano"]
    assert main([*words, "--weights", "random:0", "--stores", str(tmp_path / "features")]) == 2
    err = capsys.readouterr().err
    assert f"the name '{escaped(name)}.jpg' has control characters; rename the file" in err
    assert not any(has_control(line) for line in err.splitlines())
