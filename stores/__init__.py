"""Stores of feature pyramids: format v1, its writer, its reader and its checks.

Names resolve on first use, so that a head that needs only `stores.pyramid` loads neither zarr nor numcodecs.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "open_store": "stores.reading.reader",
    "Store": "stores.reading.reader",
    "Row": "stores.reading.row",
    "StorePlan": "stores.format.plan",
    "StoreWriter": "stores.writing.writer",
    "verify_store": "stores.checks.verify",
    "StoreError": "stores.errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stores' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
