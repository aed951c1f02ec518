"""Summaries as JSON: what `--json` prints last, and what verbs write beside their pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def summary_json(summary: Mapping[str, Any], indent: int | None = None) -> str:
    """`summary` as JSON text. NaN and infinities become null: JSON has no word for them, and strict readers
    refuse the whole text for one.

    >>> summary_json({"mIoU": float("nan"), "shares": (0.5, None)})
    '{"mIoU": null, "shares": [0.5, null]}'
    """
    return json.dumps(_with_nulls(summary), indent=indent, allow_nan=False)


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary` as a JSON file for people and programs."""
    path.write_text(summary_json(summary, indent=2) + "\n")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
