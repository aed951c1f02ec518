"""JSON output of the verbs: NaN becomes null, and files are written atomically."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def json_text(content: Mapping[str, Any], indent: int | None = None) -> str:
    """`content` as JSON. NaN and infinities become null: JSON cannot express them, and strict readers
    reject the whole text.

    >>> json_text({"mIoU": float("nan"), "shares": (0.5, None)})
    '{"mIoU": null, "shares": [0.5, null]}'
    """
    return json.dumps(_with_nulls(content), indent=indent, allow_nan=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as indented JSON; a killed process leaves the previous file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json_text(content, indent=2) + "\n")
    partial.replace(path)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
