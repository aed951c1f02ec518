"""Pasted masks against a loop over pixels (mmdet's _do_paste_mask)."""

import math

import pytest
import torch
from torch import Tensor

from heads.boxes import mask_paste
from heads.boxes.mask_paste import each_mask, paste_masks

SIZE = (37, 52)


def prediction(count: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """Boxes inside the image, on its borders, smaller than a pixel and empty."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([SIZE[1], SIZE[0]])
    points = (torch.rand(count, 2, 2, generator=generator) * 1.4 - 0.2) * limit
    points = points.clamp(min=0).minimum(limit)
    boxes = torch.cat([points.amin(1), points.amax(1)], 1)
    boxes[0] = torch.tensor([10.2, 5.1, 10.9, 5.9])
    boxes[1] = torch.tensor([7.0, 8.0, 7.0, 20.0])
    boxes[2] = torch.tensor([0.0, 0.0, 52.0, 37.0])
    return {"boxes": boxes, "mask_probs": torch.rand(count, 28, 28, generator=generator)}


def by_loops(probs: list[list[float]], box: list[float]) -> list[list[float]]:
    """Probability at each pixel's centre: bilinear between cell centres, 0 beyond the outer half cell."""
    x1, y1, x2, y2 = box
    side = len(probs)
    out = []
    for row in range(SIZE[0]):
        line = []
        for column in range(SIZE[1]):
            y = (row + 0.5 - y1) / max(y2 - y1, 1e-6) * side - 0.5
            x = (column + 0.5 - x1) / max(x2 - x1, 1e-6) * side - 0.5
            value = 0.0
            for cell_y in (math.floor(y), math.floor(y) + 1):
                for cell_x in (math.floor(x), math.floor(x) + 1):
                    if 0 <= cell_y < side and 0 <= cell_x < side:
                        value += (1 - abs(y - cell_y)) * (1 - abs(x - cell_x)) * probs[cell_y][cell_x]
            line.append(value)
        out.append(line)
    return out


def test_pixels_equal_a_loop() -> None:
    made = prediction()
    found = paste_masks(made, SIZE)
    assert found.shape == (8, *SIZE) and found.dtype == torch.uint8
    pairs = zip(made["mask_probs"].tolist(), made["boxes"].tolist(), strict=True)
    values = torch.tensor([by_loops(probs, box) for probs, box in pairs])
    clear = (values - 0.5).abs() > 1e-4  # values at the threshold may round to either side
    assert torch.equal(found.bool()[clear], (values >= 0.5)[clear])
    assert clear.float().mean() > 0.99 and 0.05 < found.float().mean() < 0.6


@pytest.mark.parametrize("pixels", [1, 5000])
def test_pasting_some_at_a_time(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    expected = paste_masks(prediction(), SIZE)
    monkeypatch.setattr(mask_paste, "_PASTE_PIXELS", pixels)
    assert torch.equal(paste_masks(prediction(), SIZE), expected)


def test_one_at_a_time_in_the_part_its_box_covers() -> None:
    made = prediction()
    whole = paste_masks(made, SIZE)
    for row, ((top, left), part) in enumerate(each_mask(made, SIZE)):
        rebuilt = torch.zeros(SIZE, dtype=torch.uint8)
        rebuilt[top : top + part.shape[0], left : left + part.shape[1]] = part
        assert torch.equal(rebuilt, whole[row])
        x1, y1, x2, y2 = made["boxes"][row].tolist()
        assert part.shape[0] <= y2 - y1 + 4 and part.shape[1] <= x2 - x1 + 4
    assert row == 7


def test_a_full_mask_fills_the_pixels_whose_centres_its_box_holds() -> None:
    made = {"boxes": torch.tensor([[3.4, 2.6, 20.4, 9.4]]), "mask_probs": torch.ones(1, 28, 28)}
    expected = torch.zeros(SIZE, dtype=torch.uint8)
    expected[3:9, 3:20] = 1
    assert torch.equal(paste_masks(made, SIZE)[0], expected)


def test_nothing_to_paste() -> None:
    none = {"boxes": torch.zeros(0, 4), "mask_probs": torch.zeros(0, 28, 28)}
    assert paste_masks(none, SIZE).shape == (0, *SIZE)
    assert list(each_mask(none, SIZE)) == []
