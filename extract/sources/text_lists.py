"""Lists that people write: UTF-8 text, with or without a byte order mark; blanks at the ends do not count."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from extract.sources.record import DatasetLayoutError


def clean(text: str) -> str:
    """A label or name as people mean it: no blanks at its ends, one between its words.

    >>> clean(" arm\\t wrestling\\u00a0")
    'arm wrestling'
    """
    return " ".join(text.split())


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without blanks at their ends, empty lines kept but for those at the end.

    Raises DatasetLayoutError, naming the file, where it is not UTF-8.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DatasetLayoutError(f"{path} cannot be read as a list: {error}; save it as UTF-8") from None
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_rows(path: Path, columns: Collection[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line number and the columns of each row of a csv file with a header.

    Raises DatasetLayoutError, naming the file, where columns are missing or it is no csv file.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [clean(name) for name in reader.fieldnames or ()]
            missing = set(columns) - set(reader.fieldnames)
            if missing:
                raise DatasetLayoutError(f"{path} has no columns {', '.join(sorted(missing))}")
            for row in reader:
                if None in row.values():
                    raise DatasetLayoutError(f"{path}: line {reader.line_num} has too few columns")
                yield reader.line_num, {name: clean(row[name]) for name in row if name is not None}
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetLayoutError(f"{path} cannot be read as a csv file: {error}") from None


def refuse_twins(names: Iterable[str], where: Path) -> None:
    """Raises DatasetLayoutError for names that a person takes for one: repeated, or of another case."""
    found: dict[str, str] = {}
    for name in names:
        meant = clean(name.replace("_", " ")).casefold()
        if meant in found:
            raise DatasetLayoutError(
                f"{where}: the classes {found[meant]!r} and {name!r} are one to a reader; write both alike, "
                "or keep one of them"
            )
        found[meant] = name
