"""RoIAlign by level against a loop over single RoIs and torchvision's pooler."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from heads.boxes.roi_align import pool_rois, roi_levels

STRIDES = (4, 8, 16, 32)
SIDE = 512


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, SIDE // stride, SIDE // stride, generator=generator) for stride in STRIDES]


def random_rois(count: int = 60) -> tuple[Tensor, Tensor]:
    """Sides from a few pixels to the whole image, so that every level has some."""
    generator = torch.Generator().manual_seed(1)
    side = 2 ** (2 + 7 * torch.rand(count, 2, generator=generator))
    corner = torch.rand(count, 2, generator=generator) * (SIDE - side).clamp(min=0)
    boxes = torch.cat([corner, (corner + side).clamp(max=SIDE)], 1)
    return boxes, torch.randint(0, 2, (count,), generator=generator)


@pytest.mark.parametrize("stride_px", [4, 8])
def test_levels(stride_px: int) -> None:
    boxes = random_rois(200)[0] * stride_px / 4
    sides = [math.sqrt(float((x2 - x1) * (y2 - y1))) for x1, y1, x2, y2 in boxes.tolist()]
    expected = [min(max(math.floor(math.log2(s / (14 * stride_px) + 1e-6)), 0), 3) for s in sides]
    assert set(expected) == {0, 1, 2, 3}
    assert roi_levels(boxes, stride_px, 4).tolist() == expected


def test_levels_at_their_borders() -> None:
    """A side of exactly 56 x 2^k belongs to level k; empty and too large boxes are clamped."""
    sides = torch.tensor([0.0, 56, 111.99, 112, 224, 447, 448, 9000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], 1)
    assert roi_levels(boxes, 4, 4).tolist() == [0, 0, 0, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("cells", [7, 14])
def test_each_roi_reads_its_level(cells: int) -> None:
    boxes, images = random_rois()
    levels = roi_levels(boxes, 4, 4).tolist()
    found = pool_rois(maps(), STRIDES, boxes, images, cells)
    for row, level in enumerate(levels):
        roi = torch.cat([images[row, None].float(), boxes[row]])[None]
        expected = roi_align(maps()[level], roi, cells, 1 / STRIDES[level], 0, True)[0]
        assert torch.equal(found[row], expected)


def test_aligned_reading_of_a_ramp() -> None:
    """A map that is the x of its cells' centres is read as the x of the bins' centres: no half cell off."""
    ramp = ((torch.arange(SIDE / 4) + 0.5) * 4).expand(1, 1, SIDE // 4, -1)
    box = torch.tensor([[101.0, 80.0, 157.0, 120.0]])
    (bins,) = pool_rois([ramp], (4,), box, torch.zeros(1, dtype=torch.int64), 7)[0]
    torch.testing.assert_close(bins, (101.0 + 8 * (torch.arange(7) + 0.5)).expand(7, 7))


@pytest.mark.oracle
def test_torchvisions_pooler() -> None:
    boxes, images = random_rois()
    order = images.argsort(stable=True)
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 0)
    named = {str(level): x for level, x in enumerate(maps())}
    expected = pooler(named, [boxes[images == image] for image in (0, 1)], [(SIDE, SIDE)] * 2)
    found = pool_rois(maps(), STRIDES, boxes[order], images[order], 7, aligned=False)
    torch.testing.assert_close(found, expected)
    aligned = pool_rois(maps(), STRIDES, boxes[order], images[order], 7)
    assert (aligned - expected).abs().max() > 0.1, "alignment changes nothing"


def test_gradients_reach_the_level_read_and_no_other() -> None:
    leaves = [x.requires_grad_() for x in maps()]
    boxes = torch.tensor([[10.0, 10.0, 210.0, 140.0]])
    pool_rois(leaves, STRIDES, boxes, torch.tensor([1]), 7).sum().backward()
    touched = [x.grad is not None and bool(x.grad.any()) for x in leaves]
    assert touched == [False, True, False, False]
    assert leaves[1].grad is not None and not leaves[1].grad[0].any()


def test_no_rois() -> None:
    none = torch.zeros(0, 4)
    assert pool_rois(maps(), STRIDES, none, none[:, 0].long(), 7).shape == (0, 3, 7, 7)
