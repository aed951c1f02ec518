"""A config dataclass seen as settings: dotted names with a type, a default and the text under the field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One field, of the config itself or of one nested in it."""

    name: str
    """Dotted, with underscores: optimizer.lr."""
    types: tuple[Any, ...]
    """The members of the type, None left out: (int, str) for `int | str | None`."""
    default: Any
    """dataclasses.MISSING where the field must be given."""
    text: str
    """The docstring under the field."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def is_switch(self) -> bool:
        return self.types == (bool,)

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.types[0]) is tuple

    @property
    def is_mapping(self) -> bool:
        return typing.get_origin(self.types[0]) is dict

    @property
    def choices(self) -> tuple[str, ...]:
        kind = self.types[0]
        return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()

    @property
    def expected(self) -> str:
        """The expected value, for errors."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.is_list:
            return "a list such as a,b"
        if self.is_mapping:
            return f"a mapping, or {self.flag}.key value"
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        return " or ".join(words[kind] for kind in self.types)


def settings_of(config_class: type) -> dict[str, Setting]:
    """Every setting of a config class by name, in the order of the fields."""
    return {setting.name: setting for setting in _settings(config_class, "")}


def _settings(config_class: type, prefix: str) -> Iterator[Setting]:
    hints, texts = typing.get_type_hints(config_class), field_texts(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _settings(typing.cast(type, hint), f"{prefix}{field.name}.")
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield Setting(
            name=prefix + field.name, types=_members(hint), default=default, text=texts.get(field.name, "")
        )


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for kind in typing.get_args(hint) if kind is not type(None))
    return (hint,)


@cache
def field_texts(config_class: type) -> dict[str, str]:
    """The docstring under each field, those of base classes too; Python keeps none, so the source is read."""
    texts: dict[str, str] = {}
    for owner in reversed(config_class.__mro__[:-1]):
        tree = ast.parse(inspect.getsource(sys.modules[owner.__module__]))
        body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner.__name__)
        for node, after in itertools.pairwise(body):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                texts[node.target.id] = " ".join(str(after.value.value).split())
    return texts
