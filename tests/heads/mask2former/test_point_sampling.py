"""Sampling of label maps and masks at points against torch's grid_sample on full masks."""

import torch
import torch.nn.functional as F

from heads.mask2former.point_sampling import (
    LabelPoints,
    labels_present,
    sample_maps,
    uncertain_points,
    uniform_points,
)
from tests.heads.pyramids import random_labels

CLASSES = 5


def maps_and_points() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.stack([each["labels"] for each in random_labels(3, (7, 9), CLASSES)])
    points = torch.rand(3, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[:, 0] = 0  # on the very corner: half a pixel outside the outermost centres
    points[:, 1] = 1 - 1e-12
    return labels, points


def test_masks_of_all_classes() -> None:
    labels, points = maps_and_points()
    masks = F.one_hot(labels.clamp(max=CLASSES).long())[..., :CLASSES].permute(0, 3, 1, 2).double()
    expected = F.grid_sample(masks, points[:, :, None] * 2 - 1, align_corners=False)[..., 0]
    found = LabelPoints(labels).sample_classes(torch.arange(3), CLASSES, points)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(sample_maps(masks, points), expected)


def test_masks_of_one_class_a_row() -> None:
    labels, points = maps_and_points()
    image, label = torch.tensor([2, 0, 2, 1]), torch.tensor([0, 4, 3, 1])
    everything = LabelPoints(labels).sample_classes(torch.arange(3), CLASSES, points)
    found = LabelPoints(labels).sample_class(image, label, points[image])
    torch.testing.assert_close(found, everything[image, label])


def test_ignored_pixels_are_background_to_every_mask() -> None:
    labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    points = torch.rand(1, 10, 2)
    assert not LabelPoints(labels).sample_classes(torch.zeros(1, dtype=torch.long), CLASSES, points).any()


def test_labels_present() -> None:
    labels = torch.tensor([[[0, 0], [7, 255]], [[3, 3], [3, 3]]], dtype=torch.uint8)
    present = labels_present(labels)
    assert [each.nonzero().flatten().tolist() for each in present] == [[0, 7, 255], [3]]


def test_three_quarters_of_the_points_are_the_least_certain() -> None:
    masks = torch.randn(2, 6, 8)
    drawn = []

    def draw(rows: int, points: int) -> torch.Tensor:
        drawn.append(torch.rand(rows, points, 2))
        return drawn[-1]

    points = uncertain_points(masks, 16, draw)
    candidates, rest = drawn
    assert [x.shape for x in (candidates, rest, points)] == [(2, 48, 2), (2, 4, 2), (2, 16, 2)]
    assert torch.equal(points[:, 12:], rest)
    for mask, kept, every in zip(masks, points[:, :12], candidates, strict=True):
        certainty = sample_maps(mask[None, None], every[None]).abs().flatten()
        best = every[certainty.argsort()[:12]]
        assert {tuple(p) for p in kept.tolist()} == {tuple(p) for p in best.tolist()}


def test_points_come_from_the_generator() -> None:
    a, b = (uniform_points(torch.Generator().manual_seed(1), torch.device("cpu"))(3, 5) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (3, 5, 2) and 0 <= a.min() <= a.max() < 1
