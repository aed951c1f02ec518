"""Mask targets from cropped bits against RoIAlign on full bitmaps and a loop over samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from heads.boxes import mask_targets
from heads.boxes.conventions import MMDET, TORCHVISION
from heads.boxes.ground_truth import stack_truth
from heads.boxes.mask_targets import sample_masks
from heads.detection.mask_branch import MaskRoIs
from heads.detection.mask_branch import mask_targets as targets_of
from tests.heads.detection.detection_targets import pack_instances, random_masks

VALID_HW = [(90, 120), (101, 67)]
COUNTS = [4, 2]


def made(seed: int = 0) -> tuple[list[list[np.ndarray]], list[dict[str, Tensor]]]:
    random = np.random.default_rng(seed)
    masks = [random_masks(hw, count, random) for hw, count in zip(VALID_HW, COUNTS, strict=True)]
    masks[0][1][:] = random.random(VALID_HW[0]) < 0.5  # noise: every pixel counts
    return masks, [pack_instances(each, [0] * len(each)) for each in masks]


def random_rois(count: int, hw: tuple[int, int], seed: int) -> Tensor:
    """Inside the image, many on its borders."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * 1.4 - 0.2
    limit = torch.tensor([hw[1], hw[0]])
    points = (corners * limit).clamp(min=0).minimum(limit)
    low, high = points.amin(1).minimum(limit - 1), points.amax(1)
    return torch.cat([low, torch.maximum(high, low + 1).minimum(limit)], 1)


def full_bitmaps(masks: list[np.ndarray], rows: Tensor, rois: Tensor, size: int, aligned: bool) -> Tensor:
    bitmaps = torch.from_numpy(np.stack(masks)).float()[rows, None]
    numbered = torch.cat([torch.arange(len(rois))[:, None].float(), rois], 1)
    return roi_align(bitmaps, numbered, size, 1.0, 0, aligned)[:, 0]


def sampled(targets: list[dict[str, Tensor]], image: int, rows: Tensor, rois: Tensor, **more: bool) -> Tensor:
    truth = stack_truth(targets, VALID_HW, 1, torch.device("cpu"))
    instances = image * truth.labels_NG.shape[1] + rows
    sizes = truth.image_hw_N2[image].expand(len(rows), -1)
    return sample_masks(truth.crops, instances, rois, sizes, 28, **more)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("image", [0, 1])
def test_equal_to_roi_align_on_full_bitmaps(image: int, aligned: bool) -> None:
    masks, targets = made()
    rois = random_rois(80, VALID_HW[image], image)
    rows = torch.arange(80) % COUNTS[image]
    expected = full_bitmaps(masks[image], rows, rois, 28, aligned)
    found = sampled(targets, image, rows, rois, aligned=aligned)
    assert ((expected > 0.2) & (expected < 0.8)).any()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pixels", [1, 3000])
def test_chunks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    _, targets = made()
    rois, rows = random_rois(30, VALID_HW[0], 3), torch.arange(30) % COUNTS[0]
    expected = sampled(targets, 0, rows, rois)
    monkeypatch.setattr(mask_targets, "_WINDOW_PIXELS", pixels)
    assert torch.equal(sampled(targets, 0, rows, rois), expected)


def by_loops(mask: np.ndarray, roi: list[float], size: int) -> np.ndarray:
    """RoIAlign, aligned, one sample after the other (Mask R-CNN, section 3; half-pixel centres)."""
    height, width = mask.shape

    def read(y: float, x: float) -> float:
        if y < -1 or y > height or x < -1 or x > width:
            return 0.0
        y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
        y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        top = mask[y0, x0] * (1 - x + x0) + mask[y0, x1] * (x - x0)
        return top * (1 - y + y0) + (mask[y1, x0] * (1 - x + x0) + mask[y1, x1] * (x - x0)) * (y - y0)

    left, up, right, down = roi
    bin_y, bin_x = (down - up) / size, (right - left) / size
    rows, columns = math.ceil(bin_y), math.ceil(bin_x)
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            for a in range(rows):
                for b in range(columns):
                    y = up - 0.5 + (i + (a + 0.5) / rows) * bin_y
                    x = left - 0.5 + (j + (b + 0.5) / columns) * bin_x
                    out[i, j] += read(y, x) / (rows * columns)
    return out


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000))
def test_equal_to_plain_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    hw = (int(random.integers(6, 40)), int(random.integers(6, 40)))
    (mask,) = random_masks(hw, 1, random)
    truth = stack_truth([pack_instances([mask], [0])], [hw], 1, torch.device("cpu"))
    roi = random_rois(1, hw, seed)
    found = sample_masks(truth.crops, torch.zeros(1, dtype=torch.int64), roi, truth.image_hw_N2, 6)
    np.testing.assert_allclose(found[0], by_loops(mask, roi[0].tolist(), 6), atol=1e-4)


def test_conventions_threshold_or_keep_fractions() -> None:
    masks, targets = made()
    truth = stack_truth(targets, VALID_HW, 1, torch.device("cpu"))
    rois, rows = random_rois(20, VALID_HW[0], 5), torch.arange(20) % COUNTS[0]
    positive = MaskRoIs(
        boxes_R4=rois,
        image_R=torch.zeros(20, dtype=torch.int64),
        label_R=torch.zeros(20, dtype=torch.int64),
        instance_R=rows,
        counts_R=torch.ones(20, dtype=torch.bool),
    )
    shares = full_bitmaps(masks[0], rows, rois, 28, True)
    binary = targets_of(positive, truth, MMDET)
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    clear = (shares - 0.5).abs() > 1e-4  # values at the threshold may round to either side
    assert torch.equal(binary[clear], (shares >= 0.5).float()[clear]) and clear.float().mean() > 0.9
    kept = targets_of(positive, truth, TORCHVISION)
    torch.testing.assert_close(kept, full_bitmaps(masks[0], rows, rois, 28, False), rtol=0, atol=1e-4)


def test_no_bitmap_of_an_image_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small RoI on a large mask only its surroundings are unpacked."""
    mask = np.ones((2000, 3000), bool)
    truth = stack_truth([pack_instances([mask], [0])], [mask.shape], 1, torch.device("cpu"))
    seen = []

    def watched(windows: Tensor, *rest: object) -> Tensor:
        seen.append(tuple(windows.shape))
        return roi_align(windows, *rest)

    monkeypatch.setattr(mask_targets, "roi_align", watched)
    roi = torch.tensor([[1000.5, 700.25, 1040.0, 760.0]])
    found = sample_masks(truth.crops, torch.zeros(1, dtype=torch.int64), roi, truth.image_hw_N2, 28)
    assert found.min() == found.max() == 1
    assert seen == [(1, 1, 63, 43)]
