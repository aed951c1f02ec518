"""docs/performance.md: every block has a command whose module is there, and is replaced alone."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("measure", None)
    import measure

    return measure


def test_every_block_is_found_with_its_command(measure) -> None:
    text = (DOCS / "performance.md").read_text()
    commands = measure.blocks(text)
    assert list(commands) == re.findall(r"<!-- ([\w-]+) -->", text)
    for command in commands.values():
        assert importlib.util.find_spec(command.split()[2]) is not None, command


def test_one_block_is_replaced(measure) -> None:
    text = (DOCS / "performance.md").read_text()
    found = measure.with_printed(text, "write", "a new table")
    assert found.count("a new table") == 1
    assert measure.blocks(found) == measure.blocks(text)
    assert measure.with_printed(found, "write", "a new table") == found
