"""Codecs of features: one file each, found by its name."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from stores.codecs.contract import Codec
from stores.errors import CodecError


def codec_names() -> tuple[str, ...]:
    """The names that `codec` accepts.

    >>> codec_names()
    ('float16', 'int4', 'int8')
    """
    return tuple(sorted({module.name for module in pkgutil.iter_modules(__path__)} - {"contract"}))


@cache  # every read asks for its codec, and a disk that fails must not make a known one unknown
def codec(name: str) -> Codec:
    """The codec of this name. Raises CodecError, listing the valid names, for another."""
    if name not in codec_names():  # looked up before it is imported: the name may come from a hostile store
        raise CodecError(f"unknown codec {name!r}; known are {', '.join(codec_names())}")
    return cast(Codec, import_module(f"{__name__}.{name}").CODEC)
