"""Next step of a verb: the command to type after it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import ExtractConfig, PlanConfig, VerbConfig

PROGRAM = "python -m pipelines"


def command(verb: str, **flags: object) -> str:
    """A command line; flags are written as their config fields.

    >>> command("evaluate", run="runs/my run")
    "python -m pipelines evaluate --run 'runs/my run'"
    """
    words = [word for name, value in flags.items() for word in (_flag(name), str(value))]
    return f"{PROGRAM} {verb} {shlex.join(words)}".rstrip()


def same_extraction(config: PlanConfig) -> str:
    """The `extract` command with the settings of a plan."""
    return f"{PROGRAM} extract {shlex.join(_written(_fields(config), _defaults(ExtractConfig)))}"


def _fields(config: VerbConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _defaults(config_class: type[VerbConfig]) -> dict[str, Any]:
    """By field; of one that must be given, None."""
    return {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else None
        if field.default is dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(config_class)
    }


def _written(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    return [word for name, default in defaults.items() for word in _setting(name, given.get(name), default)]


def _setting(name: str, value: Any, default: Any) -> Iterator[str]:
    if value is None or value == default or name in ("json", "debug"):
        return
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner, usual = getattr(value, field.name), getattr(default, field.name)
            yield from _setting(f"{name}.{field.name}", inner, usual)
    elif isinstance(value, dict):
        for key, inner in value.items():
            plain = inner if isinstance(inner, str) else json.dumps(inner, separators=(",", ":"))
            yield from (f"{_flag(name)}.{key}", plain)
    elif isinstance(value, bool):
        yield from (_flag(name),) if value else (_flag(name), "false")
    else:
        yield from (_flag(name), ",".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def print_next(command_line: str, *pictures: Path) -> None:
    """The last lines of a verb: its pictures, those that exist, and what to type next."""
    if made := [str(path) for path in pictures if path.exists()]:
        print(f"pictures: {', '.join(made)}")
    print(f"next: {command_line}")
