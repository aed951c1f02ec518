"""Losses and masks as other projects' tests print them, with sources."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from heads.boxes.ground_truth import stack_truth
from heads.boxes.mask_paste import paste_masks
from heads.boxes.mask_targets import sample_masks
from heads.detection.box_head import BoxHead
from heads.detection.mask_rcnn import BOX_STDS
from heads.detection.roi_sampling import RoISamples
from tests.heads.detection.detection_targets import empty_target, pack_instances, random_masks

CPU = torch.device("cpu")


def test_fast_rcnn_losses_in_detectron2() -> None:
    """detectron2@02b5c4e:tests/modeling/test_fast_rcnn.py, test_fast_rcnn: 1.7951188087 and 4.0357131958 of
    layers and features drawn from seed 132, in that order."""
    with torch.random.fork_rng():
        torch.manual_seed(132)
        classes, deltas = nn.Linear(8, 6), nn.Linear(8, 20)
        nn.init.normal_(classes.weight, std=0.01)
        nn.init.normal_(deltas.weight, std=0.001)
        for layer in (classes, deltas):
            nn.init.zeros_(layer.bias)
        pooled = torch.rand(2, 8)
    head = BoxHead(8, 16, 5, stds=BOX_STDS)
    target = {**empty_target(), "boxes": torch.tensor([[1.0, 1, 3, 3], [2, 2, 6, 6]])}
    target |= {"labels": torch.tensor([1, 2]), "mask_hw": torch.zeros(2, 2), "mask_yx": torch.zeros(2, 2)}
    rois = RoISamples(
        boxes_NS4=torch.tensor([[[0.8, 1.1, 3.2, 2.8], [2.3, 2.5, 7, 8]]]),
        match_NS=torch.tensor([[0, 1]]),
        positive_NS=torch.ones(1, 2, dtype=torch.bool),
        valid_NS=torch.ones(1, 2, dtype=torch.bool),
        is_truth_NS=torch.zeros(1, 2, dtype=torch.bool),
    )
    truth = stack_truth([target], [(10, 10)], 5, CPU)
    losses = head.losses(classes(pooled), deltas(pooled).view(2, 5, 4), rois, truth)
    torch.testing.assert_close(losses["loss_cls"].detach(), torch.tensor(1.7951188087))
    torch.testing.assert_close(losses["loss_box"].detach(), torch.tensor(4.0357131958))


def test_masks_survive_crop_and_paste_as_in_detectron2() -> None:
    """detectron2@02b5c4e:tests/layers/test_mask_ops.py, test_crop_paste_consistency: cropped by RoIAlign to
    28 x 28 and pasted back, masks overlap the original by more than 0.95 on average (COCO)."""
    hw = (240, 320)
    masks = [mask for mask in random_masks(hw, 40, np.random.default_rng(0)) if mask.sum() > 400]
    target = pack_instances(masks, [0] * len(masks))
    truth = stack_truth([target], [hw], 1, CPU)
    rows = torch.arange(len(masks))
    sizes = torch.tensor([hw], dtype=torch.float32).expand(len(masks), 2)
    assert truth.crops is not None
    probs = sample_masks(truth.crops, rows, target["boxes"], sizes, 28)
    pasted = paste_masks({"mask_probs": (probs >= 0.5).float(), "boxes": target["boxes"]}, hw).bool().numpy()
    overlaps = [(a & b).sum() / (a | b).sum() for a, b in zip(masks, pasted, strict=True)]
    assert len(overlaps) > 20 and np.mean(overlaps) > 0.95
