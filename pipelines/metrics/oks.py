"""Object keypoint similarity (OKS) of poses, and non-maximum suppression by it.

Source: open-mmlab/mmpose@759b39c mmpose/evaluation/functional/nms.py (oks_iou, oks_nms) and metrics/
coco_metric.py (scores, areas).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
NMS_THRESHOLD = 0.9
SHOWN_SCORE = 0.2
"""Keypoints of a higher score count for the score of their person."""


def oks(pose_K2: Floats, others_NK2: Floats, area: float, areas_N: Floats, sigmas_K: Floats) -> Floats:
    """Similarity of one pose to each of others, 0 to 1: float64 (N,).

    Args:
        area, areas_N: square pixels, of the pose and the others; distances are measured by their mean.
        sigmas_K: of the keypoints.
    """
    squared_NK = ((others_NK2 - pose_K2) ** 2).sum(-1)
    scale_N = (area + areas_N) / 2 + np.spacing(1)
    similarity: Floats = np.exp(-squared_NK / (2 * sigmas_K) ** 2 / scale_N[:, None] / 2).mean(1)
    return similarity


def oks_of_truth(pose_K2: Floats, truth_K3: Floats, area: float, sigmas_K: Floats) -> float | None:
    """Similarity of a pose to an annotated one over its visible keypoints, as pycocotools has it; None where
    none is visible."""
    visible = truth_K3[:, 2] > 0
    if not visible.any():
        return None
    squared = ((pose_K2 - truth_K3[:, :2]) ** 2).sum(1)[visible]
    return float(np.exp(-squared / (2 * sigmas_K[visible]) ** 2 / (area + np.spacing(1)) / 2).mean())


def person_score(box_score: float, scores_K: npt.NDArray[np.floating]) -> float:
    """The score of its box times the mean of its keypoints' scores above SHOWN_SCORE; 0 without any.

    >>> person_score(0.5, np.array([0.9, 0.1, 0.7]))
    0.4
    """
    shown = scores_K[scores_K > SHOWN_SCORE]
    return float(box_score * shown.mean()) if len(shown) else 0.0


def extent(pose_K2: Floats) -> float:
    """The area of the box around all keypoints, in square pixels."""
    width, height = np.ptp(pose_K2, axis=0)
    return float(width * height)


def oks_nms(
    poses_NK2: Floats, scores: Sequence[float], sigmas_K: Floats, threshold: float = NMS_THRESHOLD
) -> list[int]:
    """The numbers of the poses of one image that stay, best first: none is more similar to a better one than
    `threshold`."""
    areas_N = np.array([extent(pose) for pose in poses_NK2])
    left, kept = list(np.argsort(-np.asarray(scores, np.float64), kind="stable")), []
    while left:
        best, *others = left
        kept.append(int(best))
        if not others:
            break
        alike = oks(poses_NK2[best], poses_NK2[others], float(areas_N[best]), areas_N[others], sigmas_K)
        left = [other for other, similarity in zip(others, alike, strict=True) if similarity <= threshold]
    return kept
