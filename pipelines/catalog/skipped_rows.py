"""Skipped rows and unusable annotations of a store as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stores.format.printable import escaped


def skipped_lines(rows: Iterable[tuple[str, int, str]]) -> list[str]:
    """Rows (record key, view, reason) as text, a record and reason once.

    >>> skipped_lines([("a", 0, "an empty file"), ("b", 1, "too dark"), ("a", 1, "an empty file")])
    ['a (2 views): an empty file', 'b view 1: too dark']
    """
    views: dict[tuple[str, str], list[int]] = {}
    for key, view, reason in rows:
        views.setdefault((escaped(key), escaped(reason)), []).append(view)
    return [
        f"{key} view {seen[0]}: {reason}" if len(seen) == 1 else f"{key} ({len(seen)} views): {reason}"
        for (key, reason), seen in views.items()
    ]


def unusable_text(unusable: Mapping[str, int]) -> str:
    """The share of unusable annotations that a store's identity names.

    >>> unusable_text({"count": 2, "of": 8})
    '2 of 8 annotations (25.00%) cannot be used and were left out'
    """
    share = unusable["count"] / unusable["of"]
    return (
        f"{unusable['count']} of {unusable['of']} annotations ({share:.2%}) cannot be used and were left out"
    )
