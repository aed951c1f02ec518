"""Prediction of the poses in a picture: persons in boxes, each cropped and mirrored as in tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from extract.views.persons.affine_view import AFFINE_PARAMS
from extract.views.persons.person_box import PersonRecord, Xywh
from pipelines.json_output import write_json
from pipelines.live.backbone import live_features
from pipelines.live.image_files import read_image
from pipelines.live.run_model import RunModel
from pipelines.metrics.keypoint_ap import Pose, kept_poses
from pipelines.pictures.skeletons import poses_picture
from pipelines.tasks.contract import TestView
from pipelines.tasks.pose import pose_of, record_heatmaps
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


def poses_in(model: RunModel, rgb: Pixels, boxes: list[tuple[Xywh, float]], rule: KeypointRule) -> list[Pose]:
    """The person in each box, x y width height in pixels and a score, of uint8 RGB (H, W, 3)."""
    poses: list[Pose] = []
    for first in range(0, len(boxes), _AT_ONCE):
        views = _views(model, rgb, boxes[first : first + _AT_ONCE])
        found = record_heatmaps(model.head, views, rule, device=model.backbone.device, bf16=False)
        poses += [pose_of(view, heatmaps) for view, heatmaps in found]
    return poses


@torch.inference_mode()
def _views(model: RunModel, rgb: Pixels, boxes: list[tuple[Xywh, float]]) -> list[TestView]:
    hw = (rgb.shape[0], rgb.shape[1])
    records = [PersonRecord(f"{number}", 0, hw, box=box) for number, (box, _) in enumerate(boxes)]
    drawn = [
        (number, model.recipe.view("", record, place, 0))
        for number, record in enumerate(records)
        for place in range(model.recipe.fixed_count or 1)
    ]
    if not drawn:
        return []
    pixels = np.stack([view.apply_image(rgb) for _, view in drawn])
    features = live_features(model.backbone, pixels, [view.valid_hw for _, view in drawn])
    return [
        TestView(
            key=str(number),
            features={level: x[place : place + 1] for level, x in features.items()},
            valid_hw=view.valid_hw,
            params=dict(zip(AFFINE_PARAMS, view.to_params().tolist(), strict=True)),
            original_hw=hw,
            truth={
                "image_id": np.array(0),
                "annotation_id": np.array(-1),
                "box": np.array(boxes[number][0]),
                "box_score": np.array(boxes[number][1]),
            },
            record=number,
        )
        for place, (number, view) in enumerate(drawn)
    ]


def _person(pose: Pose) -> dict[str, Any]:
    points = np.column_stack([pose.keypoints, pose.scores.astype(np.float64)])
    return {"score": pose.score, "bbox": list(pose.box), "keypoints": points.tolist()}
