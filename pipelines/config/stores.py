"""Settings of the verbs that inspect, check, convert and clean stores."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config.fields import VerbConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig(VerbConfig):
    """The store or stores to inspect (status, info)."""

    store: str | None = None
    """Folder of the store. Default: every store in `stores`."""
    stores: str = "features"
    """Folder that holds the stores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig(StoreConfig):
    """Stores to describe, on the terminal or as a page."""

    out: str | None = None
    """HTML page to write, of one store: .html. Default: none."""
    data: str | None = None
    """Folder of the data set, from which the page shows skipped images. Default: data/<official folder
    name>."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig(VerbConfig):
    """A store to convert, and the codec of the new one."""

    store: str
    """Folder of the complete store to convert; it is not touched."""
    codec: str
    """Encoding of the new store: int8, float16, or q<error> such as q2, an error in percent of each channel's
    deviation."""
    stores: str | None = None
    """Folder for the new store. Default: beside the old one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig(StoreConfig):
    """Checks of a store beyond its structure and sizes."""

    full: bool = False
    """Read every byte and compare every checksum."""
    source: bool = False
    """Compare the sha256 of each source file with the one recorded at extraction."""
    data: str | None = None
    """Folder of the data set, for `source`. Default: data/<official folder name>."""
    manifest_digest: str | None = None
    """Expected sha256 of the manifest, 64 hexadecimal digits. Default: not compared."""
    content_digest: bool = False
    """Compute the content digest from every row, print it and compare it with the recorded one. Two stores of
    equal content have equal digests, however they are laid out."""
    repair: bool = False
    """List the receipts of damaged shards, and with `yes` remove them: extract then writes them again. Run it
    only while no extraction is running."""
    yes: bool = False
    """Confirms the removal that `repair` lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GcConfig(StoreConfig):
    """Files that killed writers left behind."""

    delete: bool = False
    """Delete the files. By default they are only listed."""
