"""Bands of rows of an enlarged map: maps larger than memory are made and used some rows at a time.

Letters in tensor names: K classes, y x source cells, Y X output pixels, r rows of a band.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.contract import SizeYX

BAND_BYTES = 16 << 20
"""16 MiB, about three times: the maps of one band stay in a CPU's cache."""
GPU_BAND_BYTES = 128 << 20
"""128 MiB: few launches."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """The predicted class of each pixel of an image."""

    labels_YX: Tensor
    """uint8, on the head's device."""
    mean_confidence: float
    """Mean over the pixels of the best class's share of the scores, 0..1."""


def joined(bands: Iterator[Tensor], maps: int, size: SizeYX) -> Tensor:
    """The whole of its bands: (maps, *size)."""
    first_KrX = next(bands)
    whole_KYX = first_KrX.new_empty(maps, *size)
    row = 0
    for band_KrX in chain((first_KrX,), bands):
        whole_KYX[:, row : row + band_KrX.shape[1]] = band_KrX
        row += band_KrX.shape[1]
    return whole_KYX


def label_map(bands: Iterator[tuple[Tensor, Tensor]], size: SizeYX) -> LabelMap:
    """One label map of the labels, integers (r, X), and their confidences, float32 (r, X), of bands.

    The map is there before the first band: what is kept of each band would lie between the memory of bands,
    which the next band could then not use again.
    """
    labels_YX, first, confidence = None, 0, 0.0
    for labels_rX, confidence_rX in bands:
        if labels_YX is None:
            labels_YX = torch.empty(size, dtype=torch.uint8, device=labels_rX.device)
        labels_YX[first : first + len(labels_rX)] = labels_rX
        first += len(labels_rX)
        confidence += float(confidence_rX.sum(dtype=torch.float64))
    assert labels_YX is not None, "an image has rows"
    return LabelMap(labels_YX, confidence / (size[0] * size[1]))


def row_bands(size: SizeYX, maps: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """(first, stop) of bands of rows in which `maps` float32 maps of this size take BAND_BYTES, or one row.

    >>> cpu = torch.device("cpu")
    >>> list(row_bands((5, 1 << 22), 8, cpu)), list(row_bands((5, 100), 8, cpu))
    ([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 5)])
    """
    height, width = size
    band_bytes = BAND_BYTES if device.type == "cpu" else GPU_BAND_BYTES
    rows = max(1, band_bytes // (4 * maps * width))
    return ((first, min(first + rows, height)) for first in range(0, height, rows))


def resized_rows(x_KyX: Tensor, size: SizeYX, first: int, stop: int) -> Tensor:
    """Rows first..stop of a map resized to `size`: (K, stop - first, X).

    What `F.interpolate(..., mode="bilinear", align_corners=False)` gives there, up to the rounding of a sum
    of four products; whole maps of scores are made of such rows too, so that labels and scores agree.

    Args:
        x_KyX: float32 (K, y, x).
    """
    low_r, high_r, share_r = _source_rows(x_KyX.shape[1], size[0], first, stop)
    lowest, highest = int(low_r[0]), int(high_r[-1]) + 1
    cut_1KyX = x_KyX[None, :, lowest:highest]
    wide_KyX = F.interpolate(
        cut_1KyX, size=(highest - lowest, size[1]), mode="bilinear", align_corners=False
    )[0]
    device = x_KyX.device
    weight_r1 = share_r.to(device)[:, None]
    above_KrX = wide_KyX.index_select(1, (low_r - lowest).to(device)).mul_(1 - weight_r1)
    return above_KrX.add_(wide_KyX.index_select(1, (high_r - lowest).to(device)).mul_(weight_r1))


def _source_rows(here: int, there: int, first: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of output rows first..stop of `there`: both source rows of `here`, and the share of the second.

    The place is rounded to float32 once, as by the fused multiply-add of torch's kernels: rounded twice, the
    share differs by up to 1e-5.
    """
    scale = (torch.tensor(float(here)) / torch.tensor(float(there))).double()
    place_r = ((torch.arange(first, stop, dtype=torch.float64) + 0.5) * scale - 0.5).float().clamp(min=0)
    low_r = place_r.long().clamp(max=here - 1)
    return low_r, (low_r + 1).clamp(max=here - 1), place_r - low_r
