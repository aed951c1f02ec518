"""Codecs of features by name: one module each with `CODEC`, or `parse` for names with a number."""

from __future__ import annotations

import re
from functools import cache
from typing import cast

from stores.codecs.contract import Codec, FittedCodec
from stores.errors import CodecError
from stores.plugins import Plugin, missing_package, plugins
from stores.suggestion import did_you_mean

GROUP = "permafrost.codecs"
"""Of the entry points by which installed packages add codecs."""

_WITH_NUMBER = re.compile(r"([a-z][a-z0-9_]*?)([1-9][0-9]{0,8})")


def codec_names() -> tuple[str, ...]:
    """The names that `codec` accepts and help and errors list; of a family with a number those that its
    module lists. A module with `LISTED = False` is accepted, for what it wrote and whoever asks for it.

    >>> {"float16", "int8", "q2", "q5"} <= set(codec_names()), "int4" in codec_names()
    (True, False)
    """
    return tuple(sorted(name for plugin in plugins(GROUP, __name__).values() for name in _names(plugin)))


@cache  # every read asks for its codec, and a disk that fails must not make a known one unknown
def codec(name: str, package: str | None = None) -> Codec:
    """The codec of this name.

    Args:
        name: such as int8, or q2 for the module q with `parse`.
        package: that provided the codec when the store was made, for the error.

    Raises CodecError, listing the valid names, for another name or a number that the family refuses.
    """
    plugin, number = find_codec(name, package)
    module = plugin.load()
    return cast(Codec, module.CODEC if number is None else module.parse(number))


def find_codec(name: str, package: str | None = None) -> tuple[Plugin, int | None]:
    """The module of a codec, and the number in its name where it is one of a family. Arguments and errors as
    `codec`; no module is imported before its own name is found, because the name may come from a hostile
    store."""
    found = plugins(GROUP, __name__)
    if name in found and not _is_family(found[name]):
        return found[name], None
    match = _WITH_NUMBER.fullmatch(name)
    family = found.get(match[1]) if match else None
    if match and family and _is_family(family):
        return family, int(match[2])
    raise CodecError(
        f"unknown codec {name[:100]!r}; available: {', '.join(codec_names())}{missing_package(package)}"
        f"{did_you_mean(name[:100], codec_names())}"
    )


def needs_state(made: Codec) -> bool:
    """Whether a codec must be fitted to sample rows before it encodes."""
    return isinstance(made, FittedCodec)


def _is_family(plugin: Plugin) -> bool:
    return hasattr(plugin.load(), "parse")


def _names(plugin: Plugin) -> tuple[str, ...]:
    if not getattr(plugin.load(), "LISTED", True):
        return ()
    if not _is_family(plugin):
        return (plugin.name,)
    return tuple(f"{plugin.name}{number}" for number in plugin.load().NUMBERS)
