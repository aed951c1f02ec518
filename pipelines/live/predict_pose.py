"""Prediction of the poses in a picture: persons in boxes, each cropped and mirrored as in tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from extract.views.persons.affine_view import AFFINE_PARAMS
from extract.views.persons.person_box import PersonRecord, Xywh
from extract.views.view import View
from pipelines.json_output import write_json
from pipelines.live.backbone import live_features
from pipelines.live.image_files import read_image
from pipelines.live.run_model import RunModel
from pipelines.metrics.keypoint_ap import Pose, kept_poses
from pipelines.metrics.pose_places import flipped, pose_of
from pipelines.pictures.skeletons import poses_picture
from stores.keypoints import KeypointRule

if TYPE_CHECKING:
    from pipelines.live.person_boxes import PersonBoxes, Pixels

_AT_ONCE = 16
"""Persons whose crops go through the backbone together."""


def predict_poses(
    model: RunModel, source: Path, base: Path, boxes: PersonBoxes | None, rule: KeypointRule
) -> dict[str, Any]:
    """Writes `<base>.json` and `<base>.overlay.png` of one picture and returns the content of the JSON file.

    Args: boxes: None: one person who fills the picture.

    Raises SourceError where the file is no image, OSError where it cannot be read.
    """
    rgb = read_image(source)
    height, width = rgb.shape[:2]
    whole = [((0.0, 0.0, float(width), float(height)), 1.0)]
    found = list(whole if boxes is None else boxes.of(source, rgb))
    poses = kept_poses(poses_in(model, rgb, found, rule), rule.sigmas)
    poses_picture(rgb, poses, rule).save(f"{base}.overlay.png")
    summary = {
        "image": str(source),
        "height": height,
        "width": width,
        "keypoint_names": list(rule.names),
        "persons": [_person(pose) for pose in poses],
    }
    write_json(Path(f"{base}.json"), summary)
    return summary


def poses_in(
    model: RunModel, rgb: Pixels, boxes: Sequence[tuple[Xywh, float]], rule: KeypointRule
) -> list[Pose]:
    """The person in each box, x y width height in pixels and a score, of uint8 RGB (H, W, 3)."""
    poses: list[Pose] = []
    for first in range(0, len(boxes), _AT_ONCE):
        some = boxes[first : first + _AT_ONCE]
        poses += [
            pose_of(heatmaps, params, view.valid_hw, box=box, box_score=score)
            for (view, params, heatmaps), (box, score) in zip(
                _heatmaps(model, rgb, [box for box, _ in some], rule), some, strict=True
            )
        ]
    return poses


@torch.inference_mode()
def _heatmaps(
    model: RunModel, rgb: Pixels, boxes: Sequence[Xywh], rule: KeypointRule
) -> list[tuple[View, dict[str, float], Tensor]]:
    """Of each box its first view, the parameters of it, and the mean of the heatmaps of its views."""
    hw, count = (rgb.shape[0], rgb.shape[1]), model.recipe.fixed_count or 1
    views = [
        model.recipe.view("", PersonRecord("", 0, hw, box=box), number, 0)
        for box in boxes
        for number in range(count)
    ]
    pixels, sizes = np.stack([view.apply_image(rgb) for view in views]), [view.valid_hw for view in views]
    maps = model.head.predict(live_features(model.backbone, pixels, sizes), sizes, [hw] * len(views))
    found = []
    for first in range(0, len(views), count):
        together = zip(views[first : first + count], maps[first : first + count], strict=True)
        plain = [flipped(each, rule) if view.flip else each for view, each in together]
        params = dict(zip(AFFINE_PARAMS, views[first].to_params().tolist(), strict=True))
        found.append((views[first], params, torch.stack(plain).mean(0).cpu()))
    return found


def _person(pose: Pose) -> dict[str, Any]:
    points = np.column_stack([pose.keypoints, pose.scores.astype(np.float64)])
    return {"score": pose.score, "bbox": list(pose.box), "keypoints": points.tolist()}
