"""Bounds of a run's record: an edited run.json must be refused before anything is built from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from stores.pyramid import ONE_CELL_PX, PyramidSpec

MOST_LEVELS = 64
MOST_CHANNELS = 1 << 16
MOST_CLASSES = 1 << 20
MOST_SETTING = 1 << 20
"""Of a number in a head's settings: channels, layers, points; a width of so many would take terabytes."""


class Recorded(Protocol):
    """What is checked of a RunRecord."""

    @property
    def head(self) -> str: ...
    @property
    def head_settings(self) -> Mapping[str, Any]: ...
    @property
    def pyramid(self) -> list[dict[str, Any]]: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def stores_folder(self) -> str: ...


def check_record(record: Recorded) -> None:
    """Raises ValueError, KeyError or TypeError for a record that no run of this project has."""
    _require(isinstance(record.head, str), "head", record.head, "a name")
    _require(isinstance(record.stores_folder, str), "stores_folder", record.stores_folder, "a folder")
    _require(isinstance(record.head_settings, dict), "head_settings", record.head_settings, "settings")
    for number in _numbers(record.head_settings):
        _require(abs(number) <= MOST_SETTING, "head_settings", number, f"numbers up to {MOST_SETTING}")
    _require(
        isinstance(record.pyramid, list) and 0 < len(record.pyramid) <= MOST_LEVELS,
        "pyramid",
        record.pyramid,
        f"1 to {MOST_LEVELS} levels",
    )
    for level in PyramidSpec.from_json(record.pyramid):
        _require(level.channels <= MOST_CHANNELS, "channels", level.channels, f"at most {MOST_CHANNELS}")
        _require(level.stride_px <= ONE_CELL_PX, "stride_px", level.stride_px, f"at most {ONE_CELL_PX}")
    _check_identity(record.identity)


def _check_identity(identity: Mapping[str, Any]) -> None:
    dataset, backbone, codec = identity["dataset"], identity["backbone"], identity["codec"]
    for part in (dataset, backbone, codec):
        _require(isinstance(part, dict), "identity", part, "data set, backbone and codec")
    for part, name in (
        (dataset, "name"),
        (dataset, "task"),
        (backbone, "model"),
        (backbone, "weights_sha256"),
    ):
        _require(isinstance(part[name], str), name, part[name], "text")
    classes, names = dataset["num_classes"], dataset["class_names"]
    is_count = type(classes) is int and 0 <= classes <= MOST_CLASSES
    _require(is_count, "num_classes", classes, f"0 to {MOST_CLASSES}")
    _require(isinstance(names, list) and len(names) <= MOST_CLASSES, "class_names", names, "a list of names")
    _require(codec["name"] is None or isinstance(codec["name"], str), "codec", codec["name"], "a name")


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _require(holds: bool, field: str, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{field} is {str(found)[:100]!r}, expected {expected}")
