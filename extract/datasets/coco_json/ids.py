"""Ids of COCO files as people mean them: whole numbers, also where an exporter wrote 18.0 or "18"."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ID_FIELDS = ("id", "image_id", "category_id", "iscrowd")
"""Of an annotation, all whole numbers."""
_DIGITS = re.compile(r"\s*([+-]?\d{1,19})(\.0*)?\s*")


def whole_number(value: Any) -> int | None:
    """An integer, a float without a fraction, or a text of digits as the integer it means; else None.

    >>> whole_number(18), whole_number(18.0), whole_number("0018"), whole_number("18.0")
    (18, 18, 18, 18)
    >>> whole_number(18.5), whole_number("a"), whole_number(True), whole_number(None)
    (None, None, None, None)
    """
    if type(value) is int:
        return value
    if type(value) is float:
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and (digits := _DIGITS.fullmatch(value)):
        return int(digits[1])
    return None


def shown_id(value: Any) -> str:
    """An id with its type, for messages.

    >>> shown_id(18.5), shown_id("a")
    ('18.5 (float)', "'a' (str)")
    """
    return (
        f"{str(value)[:40]!r} (str)"
        if isinstance(value, str)
        else f"{str(value)[:40]} ({type(value).__name__})"
    )


class IdReader:
    """Reads the ids of annotations and counts those that were not integers, for one line about them."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], Any] = {}

    def read(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The annotation with whole numbers as ids; the same object where it has them already."""
        changed = {}
        for field in ID_FIELDS:
            value = entry.get(field)
            if value is None or type(value) is int:
                continue
            number = whole_number(value)
            if number is not None:
                changed[field] = number
                self._note(field, value)
        return {**entry, **changed} if changed else entry

    def whole(self, what: str, value: Any) -> int | None:
        """The integer that a number of this kind means; None where it means none."""
        number = whole_number(value)
        if number is not None and type(value) is not int:
            self._note(what, value)
        return number

    def _note(self, field: str, value: Any) -> None:
        kind = field, type(value).__name__
        self._counts[kind] += 1
        self._examples.setdefault(kind, value)

    def report(self, path: Path | str) -> None:
        """Warns, once, of ids that were read as integers although they were written as something else."""
        if self._counts:
            shown = ", ".join(
                f"{count} {field} such as {shown_id(self._examples[field, kind])}"
                for (field, kind), count in self._counts.most_common()
            )
            logger.warning("%s: numbers that are not written as integers are read as such: %s", path, shown)


def image_ids(names: Sequence[str]) -> list[int]:
    """Of results files: the number that is an image's name, as in VOC 2007, else its place in the list.

    >>> image_ids(["000007", "000012"]), image_ids(["2012_000004", "2012_000032"])
    ([7, 12], [1, 2])
    """
    if all(name.isdecimal() and len(name) < 16 for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))
