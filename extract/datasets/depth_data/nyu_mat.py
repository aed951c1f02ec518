"""The labelled part of NYU Depth V2: nyu_depth_v2_labeled.mat (MATLAB v7.3, HDF5) with splits.mat.

`images` is uint8 (1449, 3, 640, 480) and `depths` float32 (1449, 640, 480) in metres, as HDF5 shows MATLAB's
axes; `trainNdxs` and `testNdxs` of splits.mat count from 1. Needs h5py (extra `mat`).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from extract.datasets.layouts.label_maps import Pair
from extract.sources.record import DatasetLayoutError

MAT, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
_BMP_HEADER = 54
_NPY_HEADER = 128
_LOCK = Lock()
"""HDF5 reads one array at a time."""


def mat_file(data: Path) -> Path | None:
    """The .mat file that a path is or holds."""
    if data.is_file() and data.suffix == ".mat":
        return data
    return data / MAT if (data / MAT).is_file() else None


def mat_pairs(mat: Path, split: str) -> list[Pair]:
    """The pairs of a split, `train` or `test`. Raises DatasetLayoutError for files that are not NYU's."""
    splits = mat.with_name(SPLITS)
    if not splits.is_file():
        raise DatasetLayoutError(
            f"{mat.parent}: {SPLITS} is missing beside {mat.name}: get both from NYU Depth V2's site"
        )
    from scipy.io import loadmat  # late: no other data set needs it

    opened = _opened(mat)
    try:
        count, channels, width, height = opened["images"].shape
        depths = opened["depths"].shape
        chosen = np.asarray(loadmat(splits)[f"{split}Ndxs"]).reshape(-1).astype(int) - 1
    except (KeyError, ValueError, NotImplementedError) as error:
        raise DatasetLayoutError(f"{mat.parent}: {MAT} or {SPLITS} is not NYU Depth V2's: {error}") from None
    if channels != 3 or depths != (count, width, height) or not len(chosen) or chosen.max() >= count:
        raise DatasetLayoutError(
            f"{mat}: images {opened['images'].shape} and depths {depths}, expected (N, 3, X, Y) and (N, X, Y)"
            f" of {len(chosen)} images of split {split} at most"
        )
    return [
        Pair(
            f"{number + 1:04d}",
            _Image(mat, int(number), (height, width)),
            _Depth(mat, int(number), (height, width)),
        )
        for number in chosen.tolist()
    ]


@cache
def _opened(mat: Path) -> Any:
    try:
        import h5py  # late: an extra
    except ImportError as error:
        raise DatasetLayoutError(
            f"{mat} needs h5py, which is not installed ({error}): pip install 'permafrost[mat]'"
        ) from error
    try:
        return h5py.File(mat, "r")
    except OSError as error:
        raise DatasetLayoutError(f"{mat} cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class _Image:
    """An image as an uncompressed BMP: its bytes follow from its pixels alone."""

    mat: Path
    number: int
    hw: tuple[int, int]

    @property
    def size(self) -> int:
        return _BMP_HEADER + self.hw[0] * _row_bytes(self.hw[1])

    def read(self, limit: int | None = None) -> bytes:
        height, width = self.hw
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        header = b"BM" + struct.pack("<IHHI", self.size, 0, 0, _BMP_HEADER) + info
        if limit is not None:  # for the header alone, which takes no look into the file
            return header.ljust(min(limit, self.size), b"\0")
        with _LOCK:
            rgb_CXY = _opened(self.mat)["images"][self.number]
        rows = np.zeros((height, _row_bytes(width)), np.uint8)
        rows[:, : 3 * width] = rgb_CXY.transpose(2, 1, 0)[::-1, :, ::-1].reshape(height, 3 * width)
        return header + rows.tobytes()


@dataclass(frozen=True, slots=True)
class _Depth:
    """A depth map as a .npy file of float32 metres."""

    mat: Path
    number: int
    hw: tuple[int, int]

    @property
    def size(self) -> int:
        return _NPY_HEADER + 4 * self.hw[0] * self.hw[1]

    def read(self, limit: int | None = None) -> bytes:
        with _LOCK:
            depth_XY = _opened(self.mat)["depths"][self.number]
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(depth_XY.T.astype("<f4")))
        return file.getvalue() if limit is None else file.getvalue()[:limit]


def _row_bytes(width: int) -> int:
    """Of a BMP: a multiple of 4."""
    return (3 * width + 3) // 4 * 4
