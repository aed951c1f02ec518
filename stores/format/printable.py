"""Control characters in names: refused in new stores, escaped where text is printed or logged.

A name with an escape sequence or a line break can rewrite what a terminal shows, or forge a line of a log.
"""

from __future__ import annotations

import re

_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""C0, DEL and C1, separators of lines, directions of text, and bytes of a file name that are not UTF-8."""
_ANY = re.compile(f"[{_CONTROL}]")
_BUT_LINES = re.compile(rf"(?![\n\t])[{_CONTROL}]")


def has_control(text: str) -> bool:
    """Whether `text` holds a control character.

    >>> has_control("a b"), has_control("a\\x1b[2J")
    (False, True)
    """
    return _ANY.search(text) is not None


def escaped(text: object) -> str:
    r"""`text` on one line: each control character as it is written in Python.

    >>> print(escaped("a\nb\x1b[2J"))
    a\nb\x1b[2J
    """
    return _ANY.sub(_as_written, str(text))


def escaped_lines(text: str) -> str:
    r"""The same, but line breaks and tabs stay.

    >>> print(escaped_lines("a\nb\x1b[2J"))
    a
    b\x1b[2J
    """
    return _BUT_LINES.sub(_as_written, text)


def _as_written(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
