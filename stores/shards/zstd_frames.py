"""Zstandard frames whose decoded length must be the expected one, whatever their header claims."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd

from stores.errors import IntegrityError
from stores.format.array_spec import ZSTD_LEVEL

_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_HEADER_BYTES = 18
_CODEC = Zstd(level=ZSTD_LEVEL)
_encoder = cache(Zstd)  # by level


def encode_frame(data: npt.NDArray[Any], level: int = ZSTD_LEVEL) -> bytes:
    """One frame holding the bytes of a contiguous array, its length in the header; releases the GIL."""
    return bytes(_encoder(level).encode(data))


def frame_bound(decoded_bytes: int) -> int:
    """Upper bound of a frame of `decoded_bytes` (zstd.h, ZSTD_COMPRESSBOUND), with room to spare."""
    return decoded_bytes + (decoded_bytes >> 8) + 1024


def content_bytes(frame: bytes | memoryview) -> int | None:
    """The decoded length in the frame header (RFC 8878, 3.1.1.1); None if it has none."""
    head = bytes(frame[:_MAX_HEADER_BYTES])
    if len(head) < 6 or head[:4] != _MAGIC:
        return None
    descriptor = head[4]
    single_segment = descriptor >> 5 & 1
    at = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = (single_segment, 2, 4, 8)[descriptor >> 6]
    field = head[at : at + size]
    if size == 0 or len(field) < size:
        return None
    return int.from_bytes(field, "little") + (256 if size == 2 else 0)


def decode_frame(frame: bytes | memoryview, out: npt.NDArray[np.uint8], what: str) -> None:
    """Decodes one frame into the whole of a flat uint8 array; releases the GIL.

    Raises IntegrityError, naming the chunk as `what`, for a frame of another length: numcodecs would
    otherwise grow its buffer to any size that a frame without a length decodes to.
    """
    stated = content_bytes(frame)
    if stated != len(out):
        raise IntegrityError(f"{what}: its zstd frame states a length of {stated}, expected {len(out)} bytes")
    try:
        _CODEC.decode(frame, out)
    except (RuntimeError, ValueError) as error:
        raise IntegrityError(f"{what}: its zstd frame does not decode: {error}") from None
