"""Matching of candidate boxes to ground truth, and random samples for a training step.

mmdet:core/bbox/assigners/max_iou_assigner.py and samplers/random_sampler.py, for all images at once: ground
truth is padded to one count, samples have a fixed count, and nothing waits for the device.

Dims: N images, G ground-truth boxes (padded), A candidates, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from heads.boxes.boxes import pairwise_iou

DrawUniform = Callable[[int, int], Tensor]
"""(rows, columns) -> uniform numbers in 0..1, 1 excluded."""

BACKGROUND = -1
IGNORED = -2
_PAIRS = 16 << 20  # overlaps held at a time: 64 MiB of float32


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignRule:
    """Overlaps that make a candidate an object or background; rules for boxes without a good candidate."""

    positive_iou: float
    """Overlap from which a candidate is matched to an object."""
    negative_iou: float
    """Below this overlap with every box it is background; in between it is ignored."""
    rescue_iou: float | None
    """A box's best candidates (all that tie) are matched to it from this overlap on; None: never."""
    rescued_take_best: bool = False
    """Rescued candidates take the box they overlap most (torchvision) instead of the one that rescued them
    (mmdet)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Candidates drawn for a step; the positive ones of an image come first."""

    index_NS: Tensor
    """int64, which candidate."""
    positive_NS: Tensor
    """bool."""
    valid_NS: Tensor
    """bool; False is padding in images with too few candidates."""


def assign(
    boxes_NG4: Tensor,
    exists_NG: Tensor,
    candidates_NA4: Tensor,
    rule: AssignRule,
    usable_NA: Tensor | None = None,
) -> Tensor:
    """int64 (N, A): the index of its box in 0..G-1, BACKGROUND or IGNORED.

    Args:
        boxes_NG4, exists_NG: ground truth; `exists` is False for padding.
        candidates_NA4: (1, A, 4) serves all images.
        usable_NA: bool; the other candidates are IGNORED and rescue no box. None: all are usable.

    Ties: a candidate takes the first of the boxes it overlaps most, and the last of those that rescue it.
    """
    images, candidates = len(exists_NG), candidates_NA4.shape[1]
    best_NA = boxes_NG4.new_full((images, candidates), -1.0)
    match_NA = torch.zeros(images, candidates, dtype=torch.int64, device=boxes_NG4.device)
    highest = []
    for first, iou_NgA in _overlaps(boxes_NG4, exists_NG, candidates_NA4, usable_NA):
        chunk_best_NA, chunk_match_NA = iou_NgA.max(1)
        is_better_NA = chunk_best_NA > best_NA
        best_NA = torch.where(is_better_NA, chunk_best_NA, best_NA)
        match_NA = torch.where(is_better_NA, chunk_match_NA + first, match_NA)
        if rule.rescue_iou is not None:
            highest.append(iou_NgA.amax(2))
    assigned_NA = torch.where(best_NA >= rule.positive_iou, match_NA, IGNORED)
    assigned_NA = torch.where(best_NA < rule.negative_iou, BACKGROUND, assigned_NA)
    if usable_NA is not None:
        assigned_NA = torch.where(usable_NA, assigned_NA, IGNORED)
    if rule.rescue_iou is None:
        return assigned_NA
    # Overlaps of boxes that do not exist are -1 and so below any rescue.
    wanted_NG = torch.cat(highest, 1)
    wanted_NG = torch.where(wanted_NG >= rule.rescue_iou, wanted_NG, 2.0)
    overlaps = _overlaps(boxes_NG4, exists_NG, candidates_NA4, usable_NA)
    rescuer_NA = torch.full_like(match_NA, -1)
    for first, iou_NgA in overlaps:
        rescuer_NA = torch.maximum(rescuer_NA, _last_rescuer(first, iou_NgA, wanted_NG))
    rescued_NA = match_NA if rule.rescued_take_best else rescuer_NA
    return torch.where(rescuer_NA >= 0, rescued_NA, assigned_NA)


def _last_rescuer(first: int, iou_NgA: Tensor, wanted_NG: Tensor) -> Tensor:
    """int64 (N, A): the last of the boxes first, first + 1, ... that overlaps a candidate by as much as it
    wants, -1 where none."""
    chunk = iou_NgA.shape[1]
    number_g1 = torch.arange(first, first + chunk, device=iou_NgA.device)[:, None]
    rescues_NgA = iou_NgA == wanted_NG[:, first : first + chunk, None]
    return torch.where(rescues_NgA, number_g1, -1).amax(1)


def _overlaps(
    boxes_NG4: Tensor, exists_NG: Tensor, candidates_NA4: Tensor, usable_NA: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """(first box, IoU (N, g, A)) for some boxes at a time, -1 for boxes that do not exist and for candidates
    that are not usable."""
    images, boxes = exists_NG.shape
    chunk = max(1, _PAIRS // max(1, images * candidates_NA4.shape[1]))
    for first in range(0, boxes, chunk):
        part = slice(first, first + chunk)
        iou_NgA = pairwise_iou(boxes_NG4[:, part], candidates_NA4)
        iou_NgA = iou_NgA.masked_fill_(~exists_NG[:, part, None], -1.0)
        yield first, iou_NgA if usable_NA is None else iou_NgA.masked_fill_(~usable_NA[:, None], -1.0)


def draw_samples(
    positive_NA: Tensor, negative_NA: Tensor, samples: int, most_positive: int, draw: DrawUniform
) -> Samples:
    """Up to `most_positive` of the positive candidates, then negative ones up to `samples` in all, per image.

    The choice is uniformly random; all are taken if there are fewer.
    """
    images, candidates = positive_NA.shape
    samples = min(samples, candidates)
    most_positive = min(most_positive, samples)
    drawn_NA = draw(images, candidates)
    positive_draw, positive_index = torch.where(positive_NA, drawn_NA, -1.0).topk(most_positive)
    negative_draw, negative_index = torch.where(negative_NA, drawn_NA, -1.0).topk(samples)
    positives_N1 = (positive_draw >= 0).sum(1, keepdim=True)
    slot_S = torch.arange(samples, device=positive_NA.device)
    is_positive_NS = slot_S < positives_N1
    nth_negative_NS = (slot_S - positives_N1).clamp(min=0)
    nth_positive_NS = slot_S.clamp(max=max(most_positive - 1, 0)).expand(images, -1)
    index_NS = negative_index.gather(1, nth_negative_NS)
    if most_positive:
        index_NS = torch.where(is_positive_NS, positive_index.gather(1, nth_positive_NS), index_NS)
    return Samples(
        index_NS=index_NS,
        positive_NS=is_positive_NS,
        valid_NS=is_positive_NS | (negative_draw.gather(1, nth_negative_NS) >= 0),
    )


def uniform_draws(generator: torch.Generator | None, device: torch.device) -> DrawUniform:
    """Draws on the generator's device: one on the CPU gives the same numbers for any device."""
    source = device if generator is None else generator.device

    def draw(rows: int, columns: int) -> Tensor:
        return torch.rand(rows, columns, generator=generator, device=source).to(device, non_blocking=True)

    return draw


def gather_rows(values_NAx: Tensor, index_NS: Tensor) -> Tensor:
    """(N, S, ...): values (N or 1, A, ...) of the candidates named."""
    if len(values_NAx) == 1:
        return values_NAx[0][index_NS]
    rows_N1 = torch.arange(len(index_NS), device=index_NS.device)[:, None]
    return values_NAx[rows_N1, index_NS]
