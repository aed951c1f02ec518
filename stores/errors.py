"""The errors of stores. Each says what was wrong, the value found, what was expected and what to do."""

from __future__ import annotations

FIX_PLAN = "move the store away and extract again"
FIX_MANIFEST = "delete it and run the extraction again, which checks shards by their receipts"
FIX_DERIVED = "`verify --repair` prepares the store for its extraction, which writes this file again"
"""How to fix a damaged plan.json, MANIFEST.json or a file that follows from both; ends the error."""


class StoreError(Exception):
    """Anything a store refuses."""


class NoSuchStore(StoreError, FileNotFoundError):
    """No store at this path, or one without a plan."""


class LevelMissing(StoreError, LookupError):
    """The store does not hold the requested level."""


class MixedBins(StoreError, ValueError):
    """One call asked for rows of different padded sizes."""


class RowSkipped(StoreError, LookupError):
    """A planned row holds no data: its record was skipped, with a reason."""


class CodecError(StoreError, ValueError):
    """Features a codec cannot hold: not finite, or beyond its range."""


class PlanError(StoreError, ValueError):
    """A plan that contradicts itself, or data that do not fit the plan."""


class NoExclusiveCreation(StoreError, ValueError):
    """A file system that cannot keep two writers apart."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(
            f"{folder}: this file system has no hard links ({reason}) and no rename that refuses to replace "
            "a file, so it cannot keep two writers apart; extract to a local or NFS disk and copy the "
            "finished store, or pass --single-writer and let no other process write to it"
        )


class IdentityError(StoreError, ValueError):
    """A store is not the one that was asked for; names the field and both values."""

    def __init__(self, field: str, expected: object, found: object, advice: str = "") -> None:
        self.field, self.expected, self.found = field, expected, found
        super().__init__(
            f"identity differs in {field}: expected {expected!r}, found {found!r}"
            + (f"; {advice}" if advice else "")
        )


class IntegrityError(StoreError, OSError):
    """Bytes on disk are not those that were written; names store, shard and rows."""


class IncompleteStore(IntegrityError):
    """The store has no manifest yet: its extraction has not finished."""


class DerivedFileError(IntegrityError):
    """A small file that follows from the plan and the receipts is damaged: a new commit writes it again."""


class FormatError(IntegrityError):
    """Metadata of an unknown version or feature, or outside the bounds of the format."""


class ChangedObject(IntegrityError):
    """An object in object storage was replaced while it was read."""


class RemoteError(StoreError, OSError):
    """A server refused or failed, which says nothing about the store.

    `status` is the HTTP status; None where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class SpaceError(StoreError, OSError):
    """Not enough free space for the planned bytes."""

    def __init__(self, where: str, needed_bytes: int, free_bytes: int) -> None:
        self.needed_bytes, self.free_bytes = needed_bytes, free_bytes
        super().__init__(
            f"{where}: the plan needs {_sized(needed_bytes)} and {_sized(free_bytes)} are free; free some "
            "space, or choose fewer levels, fewer views or another disk"
        )


def _sized(size: int) -> str:
    """
    >>> _sized(21_924), _sized(2_500_000), _sized(2_500_000_000)
    ('21924 bytes', '2500000 bytes (2.50 MB)', '2500000000 bytes (2.50 GB)')
    """
    if size < 10**6:
        return f"{size} bytes"
    return f"{size} bytes ({size / 1e9:.2f} GB)" if size >= 1e9 else f"{size} bytes ({size / 1e6:.2f} MB)"
