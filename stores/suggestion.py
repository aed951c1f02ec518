"""Suggestion of the nearest known name for one that is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error: the nearest known name, or nothing where none is near.

    >>> did_you_mean("int9", ["float16", "int8"])
    '; did you mean int8?'
    >>> did_you_mean("unheard-of", ["float16", "int8"])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
