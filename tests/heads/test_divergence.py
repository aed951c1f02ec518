"""Detection heads with NaN weights: a NaN loss, no detections, no crash."""

from __future__ import annotations

import math

import pytest
import torch

from heads import build_head
from heads.boxes.boxes import clip_boxes
from tests.heads.detection.detection_targets import random_targets
from tests.heads.pyramids import pyramid_of

HW = (64, 96)
SMALL = {"width": 16, "box_width": 16, "mask_width": 16, "roi_samples": 16}
HEADS = {
    "fpn": {},
    "cascade-fpn": {},
    "cascade-fpn giou": {"box_head": "giou_4conv1fc"},
    "htc-nosem-bifpn5": {"neck_depth": 1},
}


@pytest.mark.parametrize("part", ["", "box_head"])
@pytest.mark.parametrize("name", HEADS)
def test_a_diverged_head_has_a_nan_loss(name: str, part: str) -> None:
    pyramid = pyramid_of(8)
    head = build_head(name.split()[0], "detection", pyramid, 3, **SMALL, **HEADS[name])
    for parameter_name, parameter in head.named_parameters():
        if parameter_name.startswith(part):
            parameter.data.fill_(math.nan)
    features = {
        level.name: torch.zeros(2, level.channels, level.cells(HW[0]), level.cells(HW[1]))
        for level in pyramid
    }
    losses = head.losses(features, random_targets([HW, HW], 3), [HW, HW], torch.Generator().manual_seed(0))
    total = torch.stack(list(losses.values())).sum()
    assert total.isnan()
    total.backward()
    found = head.eval().predict(features, [HW, HW], [HW, HW])
    assert all(each["boxes"].isfinite().all() for each in found)


def test_nan_coordinates_become_0() -> None:
    boxes = torch.tensor([[[math.nan, -5.0, math.inf, 40.0], [1.0, 2.0, 3.0, 4.0]]])
    clipped = clip_boxes(boxes, torch.tensor([[30.0, 20.0]]))
    assert clipped.tolist() == [[[0.0, 0.0, 20.0, 30.0], [1.0, 2.0, 3.0, 4.0]]]
