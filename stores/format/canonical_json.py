"""Canonical JSON: one text for each value, so that equal content has an equal digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from stores.errors import FormatError
from stores.small_files import require_few_containers

MAX_DEPTH = 32
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> bytes:
    """The UTF-8 text of `value`: sorted keys, no spaces, shortest floats.

    Raises ValueError for NaN or infinity, TypeError for what JSON cannot hold.

    >>> canonical_json({"b": [1, 2.5], "a": None})
    b'{"a":null,"b":[1,2.5]}'
    """
    return _ENCODER.encode(value).encode()


def normalized(value: object) -> Any:
    """`value` as it comes back from disk: tuples are lists, keys are strings."""
    return json.loads(canonical_json(value))


def sha256_hex(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def parse_canonical(data: bytes, what: str, advice: str = "") -> dict[str, Any]:
    """The JSON object in `data`, which must be canonical.

    The caller bounds the length of `data`. Requiring canonical text also refuses duplicate keys, NaN and
    numbers beyond float64, since none of them survives being written again.

    Args:
        what: names the file in errors.
        advice: how to fix it; ends the error.

    Raises:
        FormatError: not UTF-8, not JSON, nested too deeply, not an object or not canonical.
    """
    end = f"; {advice}" if advice else ""
    try:
        require_few_containers(data, "it")
        value = json.loads(data)
        _refuse_depth(value)
        again = canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{what} is not readable JSON: {type(error).__name__}: {str(error)[:200]}{end}"
        ) from None
    if not isinstance(value, dict):
        raise FormatError(f"{what} holds a {type(value).__name__}, expected a JSON object{end}")
    if again != data:
        raise FormatError(f"{what} is not canonical JSON: it was edited, or written by another program{end}")
    return value


def _refuse_depth(value: object) -> None:
    """Raises ValueError for nesting deeper than MAX_DEPTH: a recursive walk could exhaust the stack."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def identity_digest(identity: Mapping[str, object]) -> str:
    """64 hex digits, equal for two identities only if every field is equal."""
    return sha256_hex(canonical_json(identity))


def diff_identity(
    a: Mapping[str, object], b: Mapping[str, object], prefix: str = ""
) -> list[tuple[str, object, object]]:
    """Differences of two identities: (dotted field, value in a, value in b); None for an absent field.

    >>> diff_identity({"views": {"seed": 1}, "codec": "int8"}, {"views": {"seed": 2}, "codec": "int8"})
    [('views.seed', 1, 2)]
    """
    differences: list[tuple[str, object, object]] = []
    for field in sorted({*a, *b}):
        mine, other = a.get(field), b.get(field)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            differences += diff_identity(mine, other, f"{prefix}{field}.")
        elif (field in a) != (field in b) or normalized(mine) != normalized(other):
            differences.append((f"{prefix}{field}", mine, other))
    return differences
