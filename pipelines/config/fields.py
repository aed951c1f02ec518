"""Metadata of config fields: the smallest value of a count, and which runs must agree on a setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

_LEAST, _ONE_STREAM, _ONE_REPORT_ROW, _FIXED = "least", "one_stream", "one_report_row", "fixed"


def marks(
    *, least: int | None = None, one_stream: bool = False, one_report_row: bool = False, fixed: bool = False
) -> Mapping[str, int | bool]:
    """The metadata of a field, for `dataclasses.field(metadata=...)`.

    Args:
        least: the smallest value of a count; None for no limit.
        one_stream: heads that train side by side must agree on it: it decides what their batches hold.
        one_report_row: runs that differ in it are separate rows of `report`; others are repeats of one row.
    """
    given = {_ONE_STREAM: one_stream, _ONE_REPORT_ROW: one_report_row, _FIXED: fixed}
    return given if least is None else {**given, _LEAST: least}


def one_stream_settings(config_class: type) -> tuple[str, ...]:
    """The fields that heads trained side by side must agree on."""
    return _marked(config_class, _ONE_STREAM)


def one_report_row_settings(config_class: type) -> tuple[str, ...]:
    """The fields that all runs of one row of `report` agree on."""
    return _marked(config_class, _ONE_REPORT_ROW)


def fixed_settings(config_class: type) -> tuple[str, ...]:
    """The fields that a resumed run must keep."""
    return _marked(config_class, _FIXED)


def _marked(config_class: type, mark: str) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(config_class) if field.metadata.get(mark))


@dataclass(frozen=True, kw_only=True, slots=True)
class VerbConfig:
    """Flags that every verb has."""

    json: bool = False
    """Print a one-line JSON summary as the last line of stdout."""
    debug: bool = False
    """Print the traceback of an error; so does the environment variable PERMAFROST_DEBUG=1."""

    def __post_init__(self) -> None:
        """Raises ValueError for a count below its `least`; None is a choice made later."""
        for each in dataclasses.fields(self):
            least, value = each.metadata.get(_LEAST), getattr(self, each.name)
            if least is not None and value is not None and value < least:
                raise ValueError(f"{each.name} {value}: expected {least} or more")
