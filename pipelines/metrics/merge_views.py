"""From a detection head's predictions of the views of one image to the image's detections.

Each view is predicted by itself, in pixels of the original image, and mapped back where it is flipped.
Several views are merged by non-maximum suppression over all their boxes, class by class, and the best hundred
stay, each with the mask of its own view: the box merging of mmdet's `aug_test` and of Detectron2's
`GeneralizedRCNNWithTTA`. Unlike those, boxes are not scored again in every view and masks not averaged over
the views, which would need the features of all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from heads.boxes.mask_paste import each_mask
from pipelines.metrics.coco_results import Detections, mask_counts

Prediction = Mapping[str, Tensor]
"""See heads.detection.base.DetectionHead.predict."""
Hw = tuple[int, int]

MERGE_IOU = 0.5
MOST = 100
"""IoU of NMS and detections of an image, as mmdet's `test_cfg.rcnn`, which its `aug_test` merges by."""


def unflipped(prediction: Prediction, width_px: int) -> dict[str, Tensor]:
    """A prediction of a mirrored image of this width, mirrored back."""
    x1, y1, x2, y2 = prediction["boxes"].unbind(1)
    boxes_D4 = torch.stack([width_px - x2, y1, width_px - x1, y2], dim=1)
    mirrored = {**prediction, "boxes": boxes_D4}
    if "mask_probs" in prediction:
        mirrored["mask_probs"] = prediction["mask_probs"].flip(-1)
    return mirrored


def merged(predictions: Sequence[Prediction]) -> Prediction:
    """The predictions of an image's views as one, best first. A single one stays as it is."""
    if len(predictions) == 1:
        return predictions[0]
    names = predictions[0].keys()
    together = {name: torch.cat([each[name] for each in predictions]) for name in names}
    kept = batched_nms(together["boxes"].float(), together["scores"].float(), together["labels"], MERGE_IOU)
    return {name: tensor[kept[:MOST]] for name, tensor in together.items()}


def detections(prediction: Prediction, original_hw: Hw) -> Detections:
    """A prediction in pixels of the original image, on the host, its masks, if any, as run lengths."""
    on_host = {name: tensor.to("cpu") for name, tensor in prediction.items()}
    return Detections(
        boxes=on_host["boxes"].float().numpy(),
        scores=on_host["scores"].float().numpy(),
        labels=on_host["labels"].numpy(),
        counts=_run_lengths(on_host, original_hw) if "mask_probs" in on_host else None,
    )


def _run_lengths(on_host: dict[str, Tensor], original_hw: Hw) -> tuple[bytes, ...]:
    on_host = {**on_host, "mask_probs": on_host["mask_probs"].float()}
    counts: list[bytes] = []
    bitmap_1HW = np.zeros((1, *original_hw), np.uint8)
    for (top, left), part_YX in each_mask(on_host, original_hw):
        part = part_YX.numpy()
        window = (0, slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
        bitmap_1HW[window] = part
        counts += mask_counts(bitmap_1HW)
        bitmap_1HW[window] = 0
    return tuple(counts)
