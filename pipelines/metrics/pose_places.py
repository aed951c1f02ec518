"""A pose from the heatmaps of a crop: mirrored back, decoded, mapped to the source by the stored parameters
of the view.

Letters in tensor names: K keypoints, y and x cells of a heatmap.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from heads.pose.dark import decode_heatmaps
from heads.pose.heatmaps import pixels_of_cells
from pipelines.metrics.keypoint_ap import Pose
from pipelines.metrics.oks import person_score
from stores.keypoints import KeypointRule

_ROWS = (("xx", "xy", "x0"), ("yx", "yy", "y0"))
"""The map from source to crop, see extract/views/persons/affine_view.py."""


def places_in_source(
    params: Mapping[str, float], width_px: int, places_K2: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """x, y in pixels of the source, float64 (K, 2), of places in a view.

    Args:
        params: of the view by name, flip among them.
        width_px: of the view.
    """
    places = np.array(places_K2, np.float64)
    if params["flip"]:
        places[:, 0] = width_px - 1 - places[:, 0]
    rows = np.array([[params[name] for name in row] for row in _ROWS], np.float64)
    return np.asarray(np.linalg.solve(rows[:, :2], (places - rows[:, 2]).T).T, np.float64)


def flipped(heatmaps_Kyx: Tensor, rule: KeypointRule) -> Tensor:
    """Heatmaps of a mirror image as those of the image: mirrored, left and right in each other's place. They
    need no shift, as the outer cells are the centres of the outer pixels."""
    return heatmaps_Kyx.flip(-1)[list(rule.mirrored)]


def pose_of(
    heatmaps_Kyx: Tensor,
    params: Mapping[str, float],
    view_hw: tuple[int, int],
    *,
    box: npt.ArrayLike,
    box_score: float,
    image_id: int = 0,
    annotation_id: int = -1,
) -> Pose:
    """The person in a crop, in pixels of its source.

    Args:
        params: of the view by name.
        view_hw: of the view in pixels.
        box: x, y, width, height in the source that the view is of.
    """
    cells_1K2, scores_1K = decode_heatmaps(heatmaps_Kyx[None])
    map_hw = (int(heatmaps_Kyx.shape[1]), int(heatmaps_Kyx.shape[2]))
    places_K2 = pixels_of_cells(cells_1K2, view_hw, map_hw)[0].numpy()
    scores_K = scores_1K[0].numpy()
    x, y, width, height = np.asarray(box, np.float64).tolist()
    return Pose(
        image_id=image_id,
        annotation_id=annotation_id,
        keypoints=places_in_source(params, view_hw[1], places_K2),
        scores=scores_K,
        score=person_score(box_score, scores_K),
        box=(x, y, width, height),
    )
