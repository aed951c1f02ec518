"""The codec that feeds a training fastest: zstd decodes at a rate that disks and buckets may not reach."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.forecast.measurement_cache import Figures, SpeedCache
from pipelines.units import byte_rate
from stores.shards.zstd_frames import decode_frame, encode_frame

PLAIN, FITTED = "int8", "q2"
SHARE = 0.66
"""Stored bytes of q2 over int8's, see docs/codecs.md."""
CODE_DEVIATION = 8.0
"""Of made codes, which zstd then packs to about SHARE."""
_FRAME_BYTES, _FRAMES = 4 << 20, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecChoice:
    """Codes a second that reach a training, by codec."""

    codec: str
    """The faster one."""
    read_bytes_per_s: float
    zstd_bytes_per_s: float
    """Of codes, one core."""
    plain_bytes_per_s: float
    fitted_bytes_per_s: float
    in_memory: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """For `plan`.

        >>> choose(200e6, 1e9, 2, in_memory=False).line()
        'q2 wins here: 303 MB/s of codes from a disk of 200 MB/s, int8 200 MB/s; zstd decodes 1.0 GB/s a core'
        """
        rates = {PLAIN: self.plain_bytes_per_s, FITTED: self.fitted_bytes_per_s}
        other = PLAIN if self.codec == FITTED else FITTED
        where = "memory" if self.in_memory else "a disk"
        return (
            f"{self.codec} wins here: {byte_rate(rates[self.codec])} of codes from {where} of "
            f"{byte_rate(self.read_bytes_per_s)}, {other} {byte_rate(rates[other])}; zstd decodes "
            f"{byte_rate(self.zstd_bytes_per_s)} a core"
        )


def choose(read_bytes_per_s: float, zstd_bytes_per_s: float, threads: int, *, in_memory: bool) -> CodecChoice:
    """The codec whose codes arrive faster. Threads read and decode at once, so the slower of both decides.

    Args:
        read_bytes_per_s: of the disk, bucket or page cache that the store is read from.
        zstd_bytes_per_s: codes that a core decodes.
        threads: of the reader.

    >>> choose(200e6, 1e9, 2, in_memory=False).codec, choose(6e9, 1e9, 2, in_memory=True).codec
    ('q2', 'int8')
    """
    fitted = min(read_bytes_per_s / SHARE, threads * zstd_bytes_per_s)
    return CodecChoice(
        codec=FITTED if fitted > read_bytes_per_s else PLAIN,
        read_bytes_per_s=read_bytes_per_s,
        zstd_bytes_per_s=zstd_bytes_per_s,
        plain_bytes_per_s=read_bytes_per_s,
        fitted_bytes_per_s=fitted,
        in_memory=in_memory,
    )


def zstd_bytes_per_s(cache: SpeedCache) -> float:
    """Codes that one core of this machine decodes, measured once on made codes of q2."""
    return cache.get("zstd", {"bytes": _FRAME_BYTES, "deviation": CODE_DEVIATION}, _measure)["bytes_per_s"]


def _measure() -> Figures:
    codes = np.random.default_rng(0).normal(0, CODE_DEVIATION, _FRAME_BYTES).round().clip(-127, 127)
    frame, out = encode_frame(codes.astype(np.int8).view(np.uint8), 1), np.empty(_FRAME_BYTES, np.uint8)
    decode_frame(frame, out, "made codes")  # finds its memory
    began = time.perf_counter()
    for _ in range(_FRAMES):
        decode_frame(frame, out, "made codes")
    return {"bytes_per_s": _FRAMES * _FRAME_BYTES / (time.perf_counter() - began)}
