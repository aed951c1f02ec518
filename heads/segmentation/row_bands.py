"""Bands of rows of an enlarged map: maps larger than memory are made and used some rows at a time.

Letters in tensor names: K classes, y x source cells, Y X output pixels, r rows of a band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
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


@dataclass(frozen=True, slots=True, eq=False)
class ScoreBands:
    """The class scores of an image as bands of rows from top to bottom, (K, r, X) each; can be read once."""

    raw: Iterator[Tensor]
    """Bands before `finish`: the largest of a pixel is the predicted class here too."""
    finish: Callable[[Tensor], Tensor] | None = None
    """What makes scores of a band, in the same memory: a softmax of logits."""

    def __iter__(self) -> Iterator[Tensor]:
        return self.raw if self.finish is None else map(self.finish, self.raw)


def joined(bands: Iterable[Tensor], maps: int, size: SizeYX) -> Tensor:
    """The whole of its bands: (maps, *size)."""
    rest = iter(bands)
    first_KrX = next(rest)
    whole_KYX = first_KrX.new_empty(maps, *size)
    row = 0
    for band_KrX in chain((first_KrX,), rest):
        whole_KYX[:, row : row + band_KrX.shape[1]] = band_KrX
        row += band_KrX.shape[1]
    return whole_KYX


def stacked_labels(bands: Iterator[Tensor], size: SizeYX) -> Tensor:
    """One map, uint8 (*size), of the labels (r, X) of bands.

    The map is there before the first band: what is kept of each band would lie between the memory of bands,
    which the next band could then not use again.
    """
    labels_YX, first = None, 0
    for labels_rX in bands:
        if labels_YX is None:
            labels_YX = torch.empty(size, dtype=torch.uint8, device=labels_rX.device)
        labels_YX[first : first + len(labels_rX)] = labels_rX
        first += len(labels_rX)
    assert labels_YX is not None, "an image has rows"
    return labels_YX


def label_map(bands: Iterator[tuple[Tensor, Tensor]], size: SizeYX) -> LabelMap:
    """One label map of the labels (r, X) and their confidences, float32 (r, X), of bands."""
    confidences: list[Tensor] = []

    def labels() -> Iterator[Tensor]:
        for labels_rX, confidence_rX in bands:
            confidences.append(confidence_rX.sum(dtype=torch.float64))
            yield labels_rX

    labels_YX = stacked_labels(labels(), size)
    return LabelMap(labels_YX, float(torch.stack(confidences).sum()) / (size[0] * size[1]))


def best_class(scores_KrX: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the best classes at each pixel, integer (r, X), and its score: `scores_KrX.max(0)`.

    On a CPU up to three times as fast as that, which goes through the classes pixel by pixel.
    """
    if not scores_KrX.is_cpu:
        best_rX, labels_rX = scores_KrX.max(0)
        return labels_rX, best_rX
    classes = len(scores_KrX)
    best_rX = scores_KrX.amax(0)
    # The best class of least number has the greatest weight of those that equal the best score.
    weight_K11 = torch.arange(classes, 0, -1, dtype=torch.uint8)[:, None, None]
    weights_KrX = (scores_KrX == best_rX).view(torch.uint8).mul_(weight_K11)
    return weights_KrX.amax(0).neg_().add_(classes), best_rX


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
    of four products; whole maps of scores are made of such rows too, so that labels and scores agree. Waits
    for no device.

    Args:
        x_KyX: float32 (K, y, x).
    """
    lowest, weights_ry = row_weights(x_KyX.shape[1], size[0], first, stop, x_KyX.device)
    height = weights_ry.shape[1]
    cut_1KyX = x_KyX[None, :, lowest : lowest + height]
    wide_KyX = F.interpolate(cut_1KyX, size=(height, size[1]), mode="bilinear", align_corners=False)[0]
    with torch.autocast(x_KyX.device.type, enabled=False):
        return torch.matmul(weights_ry.to(wide_KyX.dtype), wide_KyX)


def row_weights(here: int, there: int, first: int, stop: int, device: torch.device) -> tuple[int, Tensor]:
    """Bilinear weights of output rows first..stop of `there`: the first source row of `here` that they read,
    and float32 (stop - first, rows read).

    A band reads few rows, so that the product with these is faster than taking two rows for each of its own.
    """
    lowest = _first_source_row(here, there, first)
    highest = min(here, _first_source_row(here, there, stop - 1) + 2)
    low_r, high_r, share_r = _source_rows(here, there, first, stop, device)
    weights_ry = torch.zeros(stop - first, highest - lowest, device=device)
    weights_ry.scatter_(1, (low_r - lowest)[:, None], (1 - share_r)[:, None])
    weights_ry.scatter_add_(1, (high_r - lowest)[:, None], share_r[:, None])
    return lowest, weights_ry


def _source_rows(
    here: int, there: int, first: int, stop: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Of output rows first..stop of `there`: both source rows of `here`, and the share of the second.

    Made on the device: a copy from the host would wait for it. The place is rounded to float32 once, as by
    the fused multiply-add of torch's kernels: rounded twice, the share differs by up to 1e-5.
    """
    row_r = torch.arange(first, stop, dtype=torch.float64, device=device)
    place_r = ((row_r + 0.5) * _scale(here, there) - 0.5).float().clamp(min=0)
    low_r = place_r.long().clamp(max=here - 1)
    return low_r, (low_r + 1).clamp(max=here - 1), place_r - low_r


def _first_source_row(here: int, there: int, row: int) -> int:
    """The first source row of an output row, as `_source_rows` has it.

    >>> [_first_source_row(3, 7, row) for row in range(7)]
    [0, 0, 0, 1, 1, 1, 2]
    """
    place = float(np.float32((row + 0.5) * _scale(here, there) - 0.5))
    return min(int(max(place, 0.0)), here - 1)


def _scale(here: int, there: int) -> float:
    """Source rows an output row, in float32 as torch's kernels have it."""
    return float(np.float32(here) / np.float32(there))
