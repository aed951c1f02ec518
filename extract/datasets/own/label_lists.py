"""Lists of videos with their labels: csv files with a header, json lists of objects, and plain lines."""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.sources.record import DatasetLayoutError
from extract.sources.text_lists import clean, read_lines

Row = tuple[int, str, str]
"""Line or place in a list, the video's path or name, and its label; "" for none."""
_FILE_COLUMNS = ("path", "file", "filename", "video", "video_path", "video_id", "id", "name")
_LABEL_COLUMNS = ("label", "class", "action", "template", "category")


def list_rows(description: Description, path: Path) -> list[Row]:
    """The rows of a list, by the columns that the description names, or by usual ones.

    Raises DatasetLayoutError, naming file and line, where it cannot be read.
    """
    if not path.is_file():
        raise DatasetLayoutError(f"looked for the list {path}: {contents(path.parent)}; {DESCRIBE}")
    ending = path.suffix.lower()
    if ending == ".json":
        return list(_columns(description, path, _objects(path)))
    if ending == ".csv" and (rows := _table(description, path)) is not None:
        return list(_columns(description, path, rows))
    return [_line(path, number, line) for number, line in enumerate(read_lines(path), start=1) if line]


def _line(path: Path, number: int, line: str) -> Row:
    for mark in (",", "\t"):
        if mark in line:
            file, label, *_ = (clean(part) for part in line.split(mark))
            return number, file, label
    file, blank, label = line.rpartition(" ")
    if not blank:
        raise DatasetLayoutError(
            f"{path}: line {number}: {line[:120]!r}, expected a path and a label, with a comma, tab or blank "
            "between"
        )
    return number, file.strip(), label


def _table(description: Description, path: Path) -> list[tuple[int, Mapping[str, Any]]] | None:
    """The rows of a csv file with a header; None where its first line is a clip already."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [clean(name).lower() for name in reader.fieldnames or ()]
            fields = [name for _, name, _, _ in string.Formatter().parse(description.file) if name]
            if not set(names) & {*_LABEL_COLUMNS, *_FILE_COLUMNS, *fields, description.label, "youtube_id"}:
                return None
            reader.fieldnames = names
            return [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetLayoutError(f"{path} cannot be read as a csv file: {error}") from None


def _objects(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetLayoutError(f"{path} is not JSON: {str(error)[:120]}") from None
    if not isinstance(whole, list) or not all(isinstance(each, dict) for each in whole):
        raise DatasetLayoutError(f'{path}: expected a list of objects, such as [{{"id": ..., "label": ...}}]')
    return list(enumerate(whole, start=1))


def _columns(
    description: Description, path: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]
) -> Iterator[Row]:
    if not rows:
        return
    known = rows[0][1]
    usual = next((name for name in _FILE_COLUMNS if name in known), None)
    pattern = description.file or (None if usual is None else f"{{{usual}}}")
    label = description.label or next((name for name in _LABEL_COLUMNS if name in known), None)
    if pattern is None:
        raise DatasetLayoutError(
            f"{path} has the columns {', '.join(map(str, known))}: none of them names the videos; write "
            "`file: '{column}'` in the description"
        )
    for number, row in rows:
        try:
            file = _Pattern().format(pattern, **{str(key): value for key, value in row.items() if key})
        except (KeyError, IndexError, ValueError) as error:
            raise DatasetLayoutError(
                f"{path}: line {number}: file {pattern!r} cannot be filled: {type(error).__name__} {error}; "
                f"it has {', '.join(map(str, row))}"
            ) from None
        yield number, clean(file), clean(str(row.get(label) or "")) if label else ""


class _Pattern(string.Formatter):
    """`{time_start:06d}` of a csv's text too, where it is a whole number, and of no attribute or index."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec and isinstance(value, str):
            value = int(float(value))
        return str(format(value, format_spec))


def read_names(path: Path) -> list[str]:
    """The names of classes in their order: of lines, of a json list, or of a json object {name: number}.

    Raises DatasetLayoutError, naming the file.
    """
    if not path.is_file():
        raise DatasetLayoutError(
            f"looked for the names of classes {path}: {contents(path.parent)}; {DESCRIBE}"
        )
    if path.suffix.lower() != ".json":
        return [clean(line) for line in read_lines(path) if line]
    try:
        whole = json.loads(path.read_bytes())
        if isinstance(whole, dict):
            whole = [name for name, _ in sorted(whole.items(), key=lambda item: int(item[1]))]
        if not isinstance(whole, list) or not whole or not all(isinstance(name, str) for name in whole):
            raise ValueError("neither a list of names nor {name: number}")
    except (ValueError, TypeError) as error:
        raise DatasetLayoutError(f"{path} holds no names of classes: {str(error)[:120]}") from None
    return [clean(name) for name in whole]
