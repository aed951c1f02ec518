"""Pose estimation: keypoints of persons in boxes in, COCO's average precision by OKS out.

Letters in tensor names: N views, K keypoints, y and x cells of a heatmap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heads.contract import Head
from pipelines.accuracy.pose_figures import PoseFigures, pose_figures
from pipelines.machine.devices import autocast
from pipelines.metrics.keypoint_ap import PersonTruths, Pose
from pipelines.metrics.pose_places import flipped, pose_of
from pipelines.tasks.contract import IMAGE_ENDINGS, Arrays, TestView, joined_features, same_shapes
from pipelines.tasks.info.pose import INFO
from stores.keypoints import KeypointRule, rule_from_json

if TYPE_CHECKING:
    from pipelines.live.person_boxes import PersonBoxes
    from pipelines.live.run_model import RunModel

AT_ONCE = 64
"""Views that go through a head together: each is one small map."""
_NO_SIGMA = 0.05
_PERSON = 1
"""Category id of results files, by default COCO's."""


class PoseEstimation:
    """The task; see `pipelines.tasks.contract.Task`."""

    training_targets = ("keypoints",)
    test_targets = (
        *("image_id", "annotation_id", "box", "box_score", "original_keypoints", "original_xywh"),
        *("original_area", "original_crowd", "original_ids"),
    )
    info = INFO
    source_kind = "images"
    source_endings = IMAGE_ENDINGS

    def __init__(
        self,
        rule: KeypointRule | None = None,
        boxes: PersonBoxes | None = None,
        category_id: int = _PERSON,
        box_file: str | None = None,
    ) -> None:
        """Args:
        rule: keypoints of the data set; None: they have no names, no sides and one sigma.
        boxes: where `write_prediction` looks for persons; None: one who fills the picture.
        category_id: of persons in results files.
        box_file: name of the file that the boxes of a test store are of; None: they are annotated.
        """
        self.rule, self.boxes, self.category_id, self.box_file = rule, boxes, category_id, box_file

    def for_dataset(self, dataset: Mapping[str, Any]) -> PoseEstimation:
        """The task with the keypoints of a store's data set, by the `dataset` of its identity."""
        facts = dataset["task_facts"]
        rule, category_id = rule_from_json(dataset["class_names"], facts), int(facts["categories"][0])
        return PoseEstimation(rule, self.boxes, category_id, dataset.get("boxes", {}).get("file"))

    def with_boxes(self, boxes: PersonBoxes) -> PoseEstimation:
        """The task that looks for persons in these boxes."""
        return PoseEstimation(self.rule, boxes, self.category_id, self.box_file)

    def head_targets(self, stored: Arrays) -> Arrays:
        return {"keypoints": np.asarray(stored["keypoints"], np.float32)}

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        sides = torch.tensor([hw[1], hw[0], 1]).float()
        places = torch.rand(rows, num_classes, 3, generator=generator) * sides
        return [{"keypoints": torch.cat([each[:, :2], each[:, 2:].ceil()], 1)} for each in places]

    def measure(
        self, head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
    ) -> PoseFigures:
        rule = self.rule or _nameless(head.num_classes)
        poses: list[tuple[int, TestView, Pose]] = []
        for shown, heatmaps in record_heatmaps(head, views, rule, device=device, bf16=bf16):
            pose = pose_of(
                *(heatmaps, shown.params, shown.valid_hw),
                box=shown.truth["box"],
                box_score=float(shown.truth["box_score"]),
                image_id=int(shown.truth["image_id"]),
                annotation_id=int(shown.truth["annotation_id"]),
            )
            poses.append((shown.record, shown, pose))
        poses.sort(key=lambda record: record[0])
        return pose_figures(
            [pose for _, _, pose in poses],
            _truths(view for _, view, _ in poses),
            keys=[view.key for _, view, _ in poses],
            rule=rule,
            views=views_name,
            box_file=self.box_file,
            category_id=self.category_id,
        )

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """Poses of the persons in a picture as `<base>.json`, and drawn on it as `<base>.overlay.png`."""
        # Late: training from a store must not load an image decoder.
        from pipelines.live.predict_pose import predict_poses

        rule = self.rule or _nameless(model.head.num_classes)
        return predict_poses(model, source, base, self.boxes, rule)

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        count = len(summary["persons"])
        return f"{count} person{'' if count == 1 else 's'}"


def record_heatmaps(
    head: Head, views: Iterable[TestView], rule: KeypointRule, *, device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Tensor]]:
    """The first view of each record that is no mirror image, else its first, and the mean of the heatmaps of
    all its views, float32 (K, y, x) on the CPU, as of that one."""
    predicted = _predicted(head, views, rule, device, bf16)
    for _, of_record in groupby(predicted, key=lambda each: each[0].key):
        shown, maps = zip(*of_record, strict=True)
        plain = next((view for view in shown if not view.params["flip"]), shown[0])
        mean = torch.stack(maps).mean(0)
        yield plain, flipped(mean, rule) if plain.params["flip"] else mean


def _predicted(
    head: Head, views: Iterable[TestView], rule: KeypointRule, device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Tensor]]:
    """Each view with its heatmaps, float32 (K, y, x) on the CPU, those of mirror images mirrored back."""
    for together in same_shapes(views, AT_ONCE):
        sizes = [view.valid_hw for view in together]
        with torch.no_grad(), autocast(device, bf16):
            found = head.predict(joined_features(together), sizes, [view.original_hw for view in together])
        for view, heatmaps_Kyx in zip(together, found, strict=True):
            heatmaps = heatmaps_Kyx.float().cpu()
            yield view, flipped(heatmaps, rule) if view.params["flip"] else heatmaps


def _truths(views: Iterable[TestView]) -> list[PersonTruths]:
    """The truth of each image, in the order of its first record."""
    found: dict[int, PersonTruths] = {}
    shown: dict[int, set[int]] = {}
    for view in views:
        stored, image_id = view.truth, int(view.truth["image_id"])
        shown.setdefault(image_id, set()).add(int(stored["annotation_id"]))
        if image_id not in found:
            found[image_id] = PersonTruths(
                image_id=image_id,
                original_hw=view.original_hw,
                keypoints=stored["original_keypoints"],
                xywh=stored["original_xywh"],
                area=stored["original_area"],
                crowd=stored["original_crowd"].astype(bool),
                ids=stored["original_ids"],
            )
    return [truth.asked_for(shown[image_id]) for image_id, truth in found.items()]


def _nameless(count: int) -> KeypointRule:
    names = tuple(str(number) for number in range(1, count + 1))
    return KeypointRule(names=names, sigmas=(_NO_SIGMA,) * count)


TASK = PoseEstimation()
"""Without the keypoints of a data set: `pipelines.tasks.task_for` gives them."""
