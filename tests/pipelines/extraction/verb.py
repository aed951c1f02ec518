"""Verbs as these tests run them, and how much data they are given."""

import json
from typing import Any

import pytest

from pipelines.__main__ import main

TRAINING, VALIDATION = 6, 4


def result(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str, str]:
    """Exit code, summary, stdout and stderr of a verb."""
    code = main([*words, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.out, captured.err


def as_validation(words: list[str]) -> list[str]:
    at = words.index("--crop-size")
    return [*words[:at], "--short-side", "64", *words[at + 2 :], "--split", "validation"]
