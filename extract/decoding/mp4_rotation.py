"""The rotation of frames recorded in an mp4 or mov file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from extract.sources.byte_sources import SourceError
from stores.format.row_table import UNDECODABLE


def mp4_rotation(file: BinaryIO) -> int:
    """Degrees counter-clockwise, from the matrix of the first video track (ISO/IEC 14496-12, 8.3.2).

    Raises SourceError for any other than quarter turns.
    """
    length = file.seek(0, 2)
    for track in _boxes(file, 0, length, (b"moov", b"trak")):
        matrix: tuple[float, ...] | None = None
        is_video = False
        for kind, start, end in track:
            if kind == b"tkhd":
                matrix = _matrix(file, start, end)
            elif kind == b"hdlr":
                file.seek(start + 8)
                is_video = file.read(4) == b"vide"
        if is_video and matrix is not None:
            return _turn(matrix)
    return 0


def _boxes(
    file: BinaryIO, start: int, end: int, path: tuple[bytes, ...]
) -> Iterator[list[tuple[bytes, int, int]]]:
    """For each box at the end of `path`: its own boxes and those of its `mdia`."""
    for kind, inner, stop in _children(file, start, end):
        if kind != path[0]:
            continue
        if path[1:]:
            yield from _boxes(file, inner, stop, path[1:])
            continue
        found = list(_children(file, inner, stop))
        for name, media, media_end in list(found):
            if name == b"mdia":
                found += _children(file, media, media_end)
        yield found


def _children(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the content of each box between two places of the file."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", file.read(8))[0], 16
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            return
        yield kind, start + header, start + size
        start += size


def _matrix(file: BinaryIO, start: int, end: int) -> tuple[float, ...] | None:
    """a, b, c, d of a track header: x' = a x + c y, y' = b x + d y."""
    file.seek(start)
    version = file.read(1)
    at = start + (52 if version == b"\x01" else 40)
    if at + 20 > end:
        return None
    file.seek(at)
    a, b, _, c, d = struct.unpack(">5i", file.read(20))
    return a / 65536, b / 65536, c / 65536, d / 65536


def _turn(matrix: tuple[float, ...]) -> int:
    turns = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 270, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 90}
    signs = tuple((value > 0) - (value < 0) for value in matrix)
    if signs not in turns:
        raise SourceError(UNDECODABLE, "turned by other than quarters of a circle, or mirrored")
    return turns[signs]
