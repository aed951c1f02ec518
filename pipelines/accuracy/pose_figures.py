"""Figures of predicted poses: COCO's numbers, results file, scores of persons, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.accuracy.record_picks import SHOWN, ImageOf
from pipelines.accuracy.record_scores import write_record_scores
from pipelines.metrics.coco_results import write_results
from pipelines.metrics.keypoint_ap import (
    PersonTruths,
    Pose,
    kept_poses,
    keypoint_numbers,
    result_entries,
    truth_as_coco,
)
from pipelines.metrics.oks import oks_of_truth
from pipelines.units import percent
from stores.keypoints import KeypointRule

_SHOWN_IMAGES = 6
_SCORES = ("AP", "AP50", "AP75", "AR")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PoseFigures:
    """Scores of a pose head."""

    numbers: Mapping[str, float | None]
    """By name, see pipelines/metrics/keypoint_ap.py."""
    truths: tuple[PersonTruths, ...]
    """Of each image."""
    kept: tuple[Pose, ...]
    """Of all images, after suppression."""
    of_record: Mapping[str, Pose]
    """By key of the record, before it."""
    rule: KeypointRule
    views: str
    box_file: str | None
    """Name of the file of boxes; None: annotated ones."""
    category_id: int

    @property
    def records(self) -> int:
        return len(self.of_record)

    @property
    def boxes(self) -> str:
        """Where persons were looked for."""
        return "annotated boxes" if self.box_file is None else f"boxes of {self.box_file}"

    def scores(self) -> Mapping[str, float | None]:
        return {name: self.numbers[name] for name in _SCORES}

    def line(self) -> str:
        shown = {name: percent(value) for name, value in self.scores().items()}
        nothing = ": no keypoint is annotated" if self.numbers["AP"] is None else ""
        return (
            f"AP {shown['AP']} ({self.views}, {self.boxes}) AP50 {shown['AP50']} AP75 {shown['AP75']} "
            f"AR {shown['AR']}, {self.records} persons in {len(self.truths)} images{nothing}"
        )

    def summary(self) -> Mapping[str, Any]:
        return {
            "keypoints": dict(self.numbers),
            "boxes": self.boxes,
            "poses": len(self.kept),
            "images": len(self.truths),
            "records": self.records,
            "views": self.views,
            "engine": "pycocotools",
        }

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """results-keypoints.json in COCO's format; keypoints.csv: mean similarity (OKS) of each keypoint;
        records.csv: OKS of each person; poses.png: truth and poses of some images on grey, for a store holds
        no images."""
        write_results(folder / f"results-keypoints{suffix}.json", result_entries(self.kept, self.category_id))
        self._write_keypoints(folder / f"keypoints{suffix}.csv")
        write_record_scores(folder / f"records{suffix}.csv", "oks", self._record_scores())
        self._draw(folder / f"poses{suffix}.png")

    def _found(self) -> Iterable[tuple[str, Pose, Any, float]]:
        """Key, pose, annotated keypoints and area of each record of an annotated box."""
        for key, pose in self.of_record.items():
            if (truth := self._truth_of(pose)) is not None:
                yield key, pose, *truth

    def _truth_of(self, pose: Pose) -> tuple[Any, float] | None:
        truth = next(truth for truth in self.truths if truth.image_id == pose.image_id)
        (places,) = np.nonzero(truth.ids == pose.annotation_id)
        return (truth.keypoints[places[0]], float(truth.area[places[0]])) if len(places) else None

    def _record_scores(self) -> dict[str, float]:
        sigmas = np.array(self.rule.sigmas)
        found = {
            key: oks_of_truth(pose.keypoints, truth, area, sigmas) for key, pose, truth, area in self._found()
        }
        return {key: score for key, score in found.items() if score is not None}

    def _write_keypoints(self, path: Path) -> None:
        sigmas, rows = np.array(self.rule.sigmas), []
        found = list(self._found())
        for number, name in enumerate(self.rule.names):
            one = slice(number, number + 1)
            scores = [
                oks_of_truth(pose.keypoints[one], truth[one], area, sigmas[one])
                for _, pose, truth, area in found
            ]
            known = [score for score in scores if score is not None]
            rows.append((name, len(known), float(np.mean(known)) if known else ""))
        text = "".join(f"{name},{count},{mean}\n" for name, count, mean in rows)
        path.write_text("keypoint,annotated,oks\n" + text)

    def _draw(self, path: Path) -> None:
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.detections import blank, write_grid
        from pipelines.pictures.skeletons import draw_persons, draw_poses

        shown = self.truths[:_SHOWN_IMAGES]
        canvases = [blank(truth.original_hw) for truth in shown]
        pairs = list(zip(canvases, shown, strict=True))
        write_grid(
            path,
            {
                "truth": [draw_persons(canvas, truth, self.rule) for canvas, truth in pairs],
                "poses": [
                    draw_poses(canvas, self._kept_in(truth.image_id), self.rule) for canvas, truth in pairs
                ],
            },
        )

    def _kept_in(self, image_id: int) -> list[Pose]:
        return [pose for pose in self.kept if pose.image_id == image_id]

    def draw_records(self, folder: Path, suffix: str, class_names: Sequence[str], image_of: ImageOf) -> None:
        """worst-records.png and best-records.png: truth and pose of the persons of lowest and highest OKS,
        each cut out of its image."""
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.records import RecordPicture, write_records
        from pipelines.pictures.skeletons import cut_out, draw_points

        size_of = {truth.image_id: truth.original_hw for truth in self.truths}
        of_key = {key: (pose, truth) for key, pose, truth, _ in self._found()}
        ordered = sorted(self._record_scores().items(), key=lambda each: (each[1], each[0]))
        for name, chosen in (("worst", ordered[:SHOWN]), ("best", ordered[::-1][:SHOWN])):
            pictures = []
            for key, score in chosen:
                pose, truth = of_key[key]
                rgb = image_of(key, size_of[pose.image_id])
                part, moved, scale = cut_out(rgb, pose.box)
                rows = {
                    "truth": draw_points(part, (truth[:, :2] - moved) * scale, truth[:, 2] > 0, self.rule),
                    "pose": draw_points(part, (pose.keypoints - moved) * scale, truth[:, 2] > 0, self.rule),
                }
                pictures.append(RecordPicture(key, f"OKS {score:.2f}", rows))
            write_records(folder / f"{name}-records{suffix}.png", pictures)


def pose_figures(
    poses: Sequence[Pose],
    truths: Sequence[PersonTruths],
    *,
    keys: Sequence[str],
    rule: KeypointRule,
    views: str,
    box_file: str | None,
    category_id: int,
) -> PoseFigures:
    """COCO's numbers of poses, one for each record, against the persons of their images."""
    of_image: dict[int, list[Pose]] = {}
    for pose in poses:
        of_image.setdefault(pose.image_id, []).append(pose)
    kept = [pose for together in of_image.values() for pose in kept_poses(together, rule.sigmas)]
    return PoseFigures(
        numbers=keypoint_numbers(
            truth_as_coco(truths, category_id), result_entries(kept, category_id), rule.sigmas
        ),
        truths=tuple(truths),
        kept=tuple(kept),
        of_record=dict(zip(keys, poses, strict=True)),
        rule=rule,
        views=views,
        box_file=box_file,
        category_id=category_id,
    )
