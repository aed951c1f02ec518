"""Detection heads with masks off: they learn from boxes and labels alone, and are otherwise the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heads import build_head
from heads.contract import Head
from heads.errors import HeadError
from tests.heads.detection.detection_targets import empty_target, random_targets
from tests.heads.pyramids import pyramid_of, random_features

PYRAMID, CLASSES = pyramid_of(24), 4
VALID_HW = [(64, 96), (60, 80)]
SMALL = {"width": 16, "box_width": 32, "mask_width": 16, "roi_samples": 16, "candidates": 40, "proposals": 20}


def built(name: str, **settings: object) -> Head:
    return build_head(name, "detection", PYRAMID, CLASSES, seed=0, **{**SMALL, **settings})


def losses(head: Head, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    features = random_features(PYRAMID, len(VALID_HW), (64, 96))
    return head.losses(features, targets, VALID_HW, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["fpn", "cascade-fpn", "htc-nosem-bifpn5"])
def test_boxes_alone_are_learnt_and_predicted(name: str) -> None:
    head = built(name, masks=False)
    assert head.target_names == ("boxes", "labels")
    targets = [
        {key: target[key] for key in ("boxes", "labels")} for target in random_targets(VALID_HW, CLASSES)
    ]
    found = losses(head, targets)
    assert found and not any("mask" in key for key in found)
    torch.stack(list(found.values())).sum().backward()
    without = [key for key, parameter in head.named_parameters() if parameter.grad is None]
    assert not without, "every parameter learns: nothing of the mask branch is there"
    assert all(torch.isfinite(loss) for loss in losses(head, [empty_target(), empty_target()]).values())
    head.eval()
    (prediction,) = head.predict(random_features(PYRAMID, 1, (64, 96)), [(64, 96)], [(128, 192)])
    assert set(prediction) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize("name", ["fpn", "cascade-fpn"])
def test_what_is_learnt_of_boxes_is_the_same_with_and_without_masks(name: str) -> None:
    """The first weights and the draws of the box branch do not depend on the mask branch."""
    targets = random_targets(VALID_HW, CLASSES)
    with_masks, without = losses(built(name), targets), losses(built(name, masks=False), targets)
    assert set(without) == {key for key in with_masks if "mask" not in key}
    assert all(torch.equal(without[key], with_masks[key]) for key in without)


def test_a_head_with_masks_asks_for_them() -> None:
    boxes = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    with pytest.raises(HeadError, match="target 0 has no mask_bits, mask_hw, mask_yx"):
        losses(built("fpn"), boxes)
    with pytest.raises(HeadError, match="masks is 'no', expected true or false"):
        built("fpn", masks="no")
