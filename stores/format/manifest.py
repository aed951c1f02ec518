"""MANIFEST.json: created exclusively and last, it makes a store complete and binds every byte of it.

It lists the digests of plan.json, of each zarr.json and of each table, and one digest of all receipts: a
reader opens no receipt, and the receipts bind the shard files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stores.errors import FIX_MANIFEST, FormatError
from stores.format.array_spec import FORMAT_NAME, FORMAT_VERSION
from stores.format.canonical_json import canonical_json, parse_canonical
from stores.format.plan import ShardId
from stores.format.plan_file import check_format

MANIFEST_NAME = "MANIFEST.json"
PLAN_NAME = "plan.json"
MAX_MANIFEST_BYTES = 64 << 20  # 64 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A planned row that holds no data."""

    row: int
    """Plan row."""
    code: int
    """Outcome code, see stores.format.row_table."""
    reason: str


@dataclass(frozen=True, slots=True)
class PackedShard:
    """Size and digest of a shard that the committer wrote."""

    bytes: int
    digest: str
    """SHA-256 in hex over that of each of its chunks and of its index."""

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "chunks_sha256": self.digest}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of MANIFEST.json; see the module."""

    identity_sha256: str
    files: Mapping[str, str]
    """sha256 by path: plan.json, every zarr.json and the chunk file of every table."""
    receipts_sha256: str
    """See `receipts_digest`."""
    generations: Mapping[ShardId, int]
    """Generation of the valid receipt, for shards with several."""
    skipped: tuple[Skipped, ...]
    packed: Mapping[str, PackedShard] | None = None
    """With the feature `packed`: the packed shards by path."""
    content_digest: str | None = None
    """With `chunk-digests`: of what the rows hold, see stores.shards.content_digest."""

    def to_bytes(self) -> bytes:
        return canonical_json(
            {
                "format": {"name": FORMAT_NAME, "version": FORMAT_VERSION},
                "identity_sha256": self.identity_sha256,
                "files": dict(self.files),
                "receipts_sha256": self.receipts_sha256,
                "generations": [[s.bin, s.shard, n] for s, n in sorted(self.generations.items())],
                "skipped": [[s.row, s.code, s.reason] for s in self.skipped],
                **self._of_layout(),
            }
        )

    def _of_layout(self) -> dict[str, Any]:
        """Fields that older layouts do not have."""
        found: dict[str, Any] = {}
        if self.packed is not None:
            found["packed"] = {path: shard.to_json() for path, shard in self.packed.items()}
        if self.content_digest is not None:
            found["content_digest"] = self.content_digest
        return found


def decode_manifest(data: bytes, what: str) -> Manifest:
    """The inverse of to_bytes, for at most MAX_MANIFEST_BYTES. Raises FormatError for anything else."""
    content = parse_canonical(data, what, FIX_MANIFEST)
    check_format(content, what)
    try:
        return _decode(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{what}: {type(error).__name__}: {str(error)[:200]}; {FIX_MANIFEST}") from None


def _decode(content: Mapping[str, Any]) -> Manifest:
    packed, digest = content.get("packed"), content.get("content_digest")
    return Manifest(
        identity_sha256=str(content["identity_sha256"]),
        files={str(path): str(digest) for path, digest in content["files"].items()},
        receipts_sha256=str(content["receipts_sha256"]),
        generations={ShardId(int(b), int(s)): int(n) for b, s, n in content["generations"]},
        skipped=tuple(Skipped(row=int(r), code=int(c), reason=str(t)) for r, c, t in content["skipped"]),
        packed=None
        if packed is None
        else {str(path): PackedShard(int(s["bytes"]), str(s["chunks_sha256"])) for path, s in packed.items()},
        content_digest=None if digest is None else str(digest),
    )


def receipts_digest(digests: Iterable[tuple[str, str]]) -> str:
    """One digest of all valid receipts, from (path, sha256) in the order of the plan's shards."""
    total = hashlib.sha256()
    for path, digest in digests:
        total.update(f"{digest} {path}\n".encode())
    return total.hexdigest()
