"""The receipts of a committed store in one file: a line each, in the order of the plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from stores.format.plan import ShardId
from stores.shards.disk import Files

PACK_PATH = "receipts/packed.jsonl"
MAX_LINE_BYTES = 32 << 20  # 32 MiB, as of a receipt
_BIN, _SHARD = re.compile(rb'\{"bin":(\d{1,9}),'), re.compile(rb',"shard":(\d{1,9}),"source":')
_GENERATION = re.compile(rb',"generation":(\d{1,9}),"lengths":')
_PIECE_BYTES = 1 << 20  # 1 MiB
_Stamp = tuple[object, ...]


def lines_of(data: bytes) -> dict[ShardId, bytes]:
    """The receipts in the bytes of a pack, unread, without those whose line names no unit."""
    found = {}
    for line in data.split(b"\n"):
        shard = unit_of(line)
        if shard is not None:
            found[shard] = line
    return found


def unit_of(line: bytes) -> ShardId | None:
    """The unit that a line claims to be of; decoding the receipt compares it."""
    bin_index, shard = _BIN.match(line), _SHARD.search(line)
    return ShardId(int(bin_index[1]), int(shard[1])) if bin_index and shard else None


def generation_of(line: bytes) -> int | None:
    """The generation that a line claims; decoding the receipt compares it."""
    found = _GENERATION.search(line)
    return int(found[1]) if found else None


class ReceiptPack:
    """The lines of the pack by unit, read where they are asked for and located again when the file
    changed."""

    def __init__(self, files: Files, root: Path) -> None:
        self._files, self._path = files, root / PACK_PATH
        self._stamp: _Stamp | None = None
        self._places: Mapping[ShardId, tuple[int, int]] = {}

    def line(self, shard: ShardId) -> bytes | None:
        """The receipt of a unit; None where the file or the line is missing."""
        try:
            fd = self._files.open(self._path)
        except FileNotFoundError:
            self._stamp, self._places = None, {}
            return None
        try:
            stamp = self._files.stamp(fd)
            if stamp != self._stamp:
                self._places, self._stamp = self._located(fd), stamp
            place = self._places.get(shard)
            return None if place is None else self._read(fd, *place)
        finally:
            self._files.close(fd)

    def _located(self, fd: int) -> dict[ShardId, tuple[int, int]]:
        found, at, rest = {}, 0, b""
        while piece := self._files.read(fd, _PIECE_BYTES, at + len(rest)):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                shard = unit_of(line)
                if shard is not None:
                    found[shard] = at, len(line)
                at += len(line) + 1
            if len(rest) > MAX_LINE_BYTES:
                break
        return found

    def _read(self, fd: int, offset: int, length: int) -> bytes:
        found = b""
        while len(found) < length:
            part = self._files.read(fd, length - len(found), offset + len(found))
            if not part:
                break
            found += part
        return found
