"""Receipts: the files of a finished shard, their checksums, and which of several writers wrote them.

A receipt is created exclusively, once the shard's files are on the disk under their writer's own names.
From then on the shard is that writer's, no matter who renames the files into place. If the shard proves
damaged, the next generation supersedes its receipt; the highest generation is valid until a manifest names
one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stores.errors import FormatError
from stores.format.arrays import packed_arrays
from stores.format.canonical_json import canonical_json, normalized, parse_canonical
from stores.format.features import CHUNK_DIGESTS
from stores.format.plan import ShardId, StorePlan
from stores.format.row_table import UNKNOWN
from stores.format.targets import RaggedTarget
from stores.shards.shard_file import FileFigures
from stores.shards.spool import SpoolFigures

MAX_RECEIPT_BYTES = 32 << 20  # 32 MiB
MAX_GENERATIONS = 1000
_WRITER_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One finished shard of every array of a bin; lists run over the shard's rows."""

    shard: ShardId
    generation: int
    writer: str
    """The writer's id, part of the names of its partial files."""
    plan_sha256: str
    files: Mapping[str, FileFigures]
    """By path from the root of the store, so that a shard cannot stand for another."""
    outcome: tuple[int, ...]
    """Codes of stores.format.row_table."""
    source: tuple[str | None, ...]
    """sha256 of each row's source file."""
    reasons: Mapping[str, str]
    """Why a row was skipped, by its position in the shard."""
    lengths: Mapping[str, tuple[int, ...]]
    """Bytes of each row of the ragged targets, 0 for a skipped row."""
    errors: Mapping[str, Any]
    """The codec's error figures by level."""
    provenance: Mapping[str, Any]
    """Device and library versions: not part of the identity."""
    content: tuple[str | None, ...] | None = None
    """With `chunk-digests`: the digest of each row, in hex, see stores.shards.content_digest."""
    spool: SpoolFigures | None = None
    """The unit's rows of packed arrays; None where its bin has none."""

    def to_bytes(self) -> bytes:
        digest = "sha256" if self.content is None else "chunks_sha256"
        return canonical_json(
            {
                "bin": self.shard.bin,
                "shard": self.shard.shard,
                "generation": self.generation,
                "writer": self.writer,
                "plan_sha256": self.plan_sha256,
                "files": {
                    path: {"bytes": f.bytes, digest: f.digest, "crc32c": f.crc32c}
                    for path, f in self.files.items()
                },
                "outcome": self.outcome,
                "source": self.source,
                "reasons": dict(self.reasons),
                "lengths": dict(self.lengths),
                "errors": normalized(dict(self.errors)),
                "provenance": normalized(dict(self.provenance)),
                **({} if self.content is None else {"content": self.content}),
                **({} if self.spool is None else {"spool": _spool_json(self.spool)}),
            }
        )


def _spool_json(spool: SpoolFigures) -> dict[str, Any]:
    return {"bytes": spool.bytes, "chunks_sha256": spool.digest, "crc32c": dict(spool.crc32c)}


def decode_receipt(data: bytes, plan: StorePlan, shard: ShardId, generation: int, paths: set[str]) -> Receipt:
    """The receipt of this shard and exactly these files. Raises FormatError for any other."""
    what = f"receipt {receipt_path(plan, shard, generation)}"
    content = parse_canonical(data, what)
    try:
        receipt = _decode(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{what}: {type(error).__name__}: {str(error)[:200]}") from None
    if not _WRITER_ID.fullmatch(receipt.writer):  # it becomes part of file names
        raise FormatError(f"{what} has the writer {receipt.writer[:80]!r}, expected 32 hex digits")
    rows = len(plan.shard_rows(shard))
    lists = [receipt.outcome, receipt.source, *receipt.lengths.values()]
    lists += [figures.crc32c for figures in receipt.files.values()]
    if (receipt.content is not None) != (CHUNK_DIGESTS in plan.features):
        raise FormatError(f"{what} is of another layout than its plan")
    lists += [] if receipt.content is None else [receipt.content]
    crcs_of_packed = {} if receipt.spool is None else receipt.spool.crc32c
    if crcs_of_packed.keys() != packed_arrays(plan, shard.bin).keys():
        raise FormatError(f"{what} does not list the packed arrays of its bin")
    lists += list(crcs_of_packed.values())
    if (receipt.shard, receipt.generation) != (shard, generation):
        raise FormatError(f"{what} is for shard {receipt.shard}, generation {receipt.generation}")
    ragged = {target.name for target in plan.targets if isinstance(target, RaggedTarget)}
    if set(receipt.files) != paths or receipt.lengths.keys() != ragged:
        raise FormatError(f"{what} does not list the files and ragged targets of its shard")
    if any(len(values) != rows for values in lists):
        raise FormatError(f"{what} does not list the {rows} rows of its shard")
    return receipt


def _decode(content: dict[str, Any]) -> Receipt:
    rows, spool = content.get("content"), content.get("spool")
    digest = "sha256" if rows is None else "chunks_sha256"
    return Receipt(
        shard=ShardId(int(content["bin"]), int(content["shard"])),
        generation=int(content["generation"]),
        writer=str(content["writer"]),
        plan_sha256=str(content["plan_sha256"]),
        files={
            path: FileFigures(_bounded(f["bytes"], 1 << 63), str(f[digest]), _crcs(f["crc32c"]))
            for path, f in content["files"].items()
        },
        outcome=tuple(_bounded(code, UNKNOWN) for code in content["outcome"]),
        source=tuple(None if digest is None else _hex_digest(digest) for digest in content["source"]),
        reasons={str(position): str(text) for position, text in content["reasons"].items()},
        lengths={
            name: tuple(_bounded(n, 1 << 31) for n in values) for name, values in content["lengths"].items()
        },
        errors=content["errors"],
        provenance=content["provenance"],
        content=None if rows is None else tuple(None if d is None else _hex_digest(d) for d in rows),
        spool=None if spool is None else _spool(spool),
    )


def _spool(fields: dict[str, Any]) -> SpoolFigures:
    crcs = {str(name): _crcs(values) for name, values in fields["crc32c"].items()}
    return SpoolFigures(_bounded(fields["bytes"], 1 << 63), str(fields["chunks_sha256"]), crcs)


def _crcs(values: list[Any]) -> tuple[int | None, ...]:
    return tuple(None if crc is None else _bounded(crc, 1 << 32) for crc in values)


def _bounded(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"{str(value)[:40]} is not a number from 0 to {limit - 1}")
    return value


def _hex_digest(value: str) -> str:
    if len(bytes.fromhex(value)) != 32:
        raise ValueError(f"{value[:80]!r} is not a sha256")
    return value


def receipt_path(plan: StorePlan, shard: ShardId, generation: int) -> str:
    """The path of a receipt, from the root of the store."""
    later = f".{generation}" if generation else ""
    return f"receipts/{plan.shard_name(shard)}{later}.json"
