"""COCO's keypoint metrics by pycocotools, with the sigmas of a data set: poses in, average precision out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.metrics.oks import oks_nms

Floats = npt.NDArray[np.float64]
Entry = dict[str, Any]
NUMBERS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
"""As pycocotools prints them: over OKS 0.50:0.95, at 0.50 and 0.75, of medium and large persons; recalls."""
MOST = 20
"""Poses of an image that count."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PersonTruths:
    """The annotated persons of one image, P of them."""

    image_id: int
    original_hw: tuple[int, int]
    keypoints: Floats
    """(P, K, 3): x, y in pixels of the image, visibility."""
    xywh: Floats
    """(P, 4)"""
    area: Floats
    """(P,) square pixels."""
    crowd: npt.NDArray[np.bool_]
    """(P,)"""
    ids: npt.NDArray[np.int64]
    """(P,) annotation ids."""
    ignored: frozenset[int] = frozenset()
    """Annotation ids of persons that are not asked for, as crowds are not."""

    def asked_for(self, annotation_ids: Collection[int]) -> PersonTruths:
        """The truth for persons in annotated boxes: others than these are not asked for. Of boxes of a file,
        whose id is -1, all are."""
        others = set() if -1 in annotation_ids else set(self.ids.tolist()) - set(annotation_ids)
        return replace(self, ignored=frozenset(others))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pose:
    """One predicted person."""

    image_id: int
    annotation_id: int
    """Of the annotated box that it was found in; -1 of any other one."""
    keypoints: Floats
    """(K, 2): x, y in pixels of the image, from the centre of its first pixel."""
    scores: npt.NDArray[np.float32]
    """(K,)"""
    score: float
    """Of the person."""
    box: tuple[float, float, float, float]
    """x, y, width, height, in which it was looked for."""


def kept_poses(poses: Sequence[Pose], sigmas: Sequence[float]) -> list[Pose]:
    """The poses of one image after suppression of those alike, best first, at most MOST; none of score 0."""
    scored = [pose for pose in poses if pose.score > 0]
    if not scored:
        return []
    places = np.stack([pose.keypoints for pose in scored])
    kept = oks_nms(places, [pose.score for pose in scored], np.array(sigmas))
    return [scored[number] for number in kept[:MOST]]


def result_entries(poses: Sequence[Pose], category_id: int) -> list[Entry]:
    """Entries of a keypoint results file, as pycocotools and COCO's server take them."""
    return [
        {
            "image_id": pose.image_id,
            "category_id": category_id,
            "keypoints": np.column_stack([pose.keypoints, pose.scores.astype(np.float64)])
            .reshape(-1)
            .tolist(),
            "score": pose.score,
        }
        for pose in poses
    ]


def truth_as_coco(truths: Sequence[PersonTruths], category_id: int) -> dict[str, Any]:
    """The truth as the content of a person_keypoints file, annotations numbered from 1."""
    images: list[Entry] = []
    annotations: list[Entry] = []
    for truth in truths:
        height, width = truth.original_hw
        images.append({"id": truth.image_id, "height": height, "width": width})
        for number in range(len(truth.ids)):
            keypoints = truth.keypoints[number]
            is_ignored = int(truth.ids[number]) in truth.ignored
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": category_id,
                    "keypoints": keypoints.reshape(-1).tolist(),
                    # pycocotools leaves persons without keypoints out of account, and finds near them too.
                    "num_keypoints": 0 if is_ignored else int((keypoints[:, 2] > 0).sum()),
                    "bbox": truth.xywh[number].tolist(),
                    "area": float(truth.area[number]),
                    "iscrowd": int(truth.crowd[number]),
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category_id, "name": "person"}],
    }


def keypoint_numbers(
    truth: Mapping[str, Any], results: Sequence[Entry], sigmas: Sequence[float]
) -> dict[str, float | None]:
    """NUMBERS of results against a person_keypoints file's content; None where nothing is to be found."""
    from pycocotools.coco import COCO  # late: loads matplotlib
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its table
        annotated = COCO()
        annotated.dataset = {**truth, "annotations": [dict(entry) for entry in truth["annotations"]]}
        annotated.createIndex()
        if results:
            found = annotated.loadRes([dict(entry) for entry in results])
        else:  # which loadRes cannot take
            found = COCO()
            found.dataset = {**annotated.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(annotated, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = map(float, evaluation.stats)
    return {name: None if value < 0 else value for name, value in zip(NUMBERS, values, strict=True)}
