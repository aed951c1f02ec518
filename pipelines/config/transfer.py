"""Settings of the verbs that copy and list stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.config.fields import VerbConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PushConfig(VerbConfig):
    """A complete store, and where it is copied to."""

    store: str
    """Folder of the store."""
    to: str
    """Folder of stores it is copied into, such as s3://bucket/features."""
    no_log: bool = False
    """Leave out the folder `log`, which names times and hosts of the extraction."""
    full: bool = False
    """Read the copy back and compare every checksum. By default structure and sizes are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PullConfig(VerbConfig):
    """A complete store, whole or in part, and the folder it is copied into."""

    store: str
    """URL of the store, such as s3://bucket/features/<store>, or a folder."""
    stores: str = "features"
    """Folder that holds the stores here."""
    levels: tuple[str, ...] | None = None
    """Levels to copy, such as p4,p5; the copy is a store of its own. Default: all."""
    rows: str | None = None
    """File of record keys, one a line, to copy in all their views; the copy is a store of its own. Default:
    all."""
    verify: Literal["full", "sizes"] = "full"
    """Comparison of the copy: full, every byte; sizes, structure and sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogConfig(VerbConfig):
    """A folder of stores to list."""

    stores: str = "features"
    """Folder or URL that holds the stores."""
    write: bool = False
    """Write catalog.json into the folder, from which readers over https:// learn what there is."""
