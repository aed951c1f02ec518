"""JSON as the verbs print and write it: what is no number is null, and a file is whole or not there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def json_text(content: Mapping[str, Any], indent: int | None = None) -> str:
    """`content` as JSON. NaN and infinities become null: JSON has no word for them, and strict readers refuse
    the whole text for one.

    >>> json_text({"mIoU": float("nan"), "shares": (0.5, None)})
    '{"mIoU": null, "shares": [0.5, null]}'
    """
    return json.dumps(_with_nulls(content), indent=indent, allow_nan=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as a file that people can read, too; a killed process leaves the file of before."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json_text(content, indent=2) + "\n")
    partial.replace(path)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
