"""Geometry of person crops: boxes, their half bodies, and the affine map from source to crop.

Formulas of mmpose (open-mmlab/mmpose@759b39c): structures/bbox/transforms.py (bbox_xywh2cs,
get_udp_warp_matrix), datasets/transforms/topdown_transforms.py (aspect), common_transforms.py (half body).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from extract.sources.record import Record
from extract.views.persons.affine_map import Matrix
from extract.views.view import Hw

Xywh = tuple[float, float, float, float]
PADDING = 1.25
"""Of the box, in both sides."""
HALF_PADDING = 1.5
"""Of the box around half a body."""
MIN_VISIBLE, MIN_UPPER, MIN_LOWER = 9, 2, 3
"""Visible keypoints that a person, its upper and its lower half need for a view of a half."""
_DIGITS = 12
"""Of sines and cosines: the last bits of a float64 differ between C libraries."""


@dataclass(frozen=True, slots=True)
class PersonRecord(Record):
    """One person of an image, as a data set of keypoints lists it."""

    box: Xywh | None = None
    """x, y, width, height in pixels of the source; None: all of it."""
    keypoints: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """(K, 3): x, y and visibility (0: not annotated); None where they are not known."""
    upper_body: tuple[int, ...] = ()
    """Numbers of the keypoints of the upper half; empty: no views of half a body."""

    @property
    def source_box(self) -> Xywh:
        """The box, else the whole image."""
        height, width = self.original_hw
        return (0.0, 0.0, float(width), float(height)) if self.box is None else self.box


@dataclass(frozen=True, slots=True)
class Region:
    """What a view shows: a centre and a size in pixels of the source."""

    centre: tuple[float, float]
    """x, y"""
    size: tuple[float, float]
    """Width, height; neither is 0."""

    def scaled(self, factor: float) -> Region:
        return Region(self.centre, (self.size[0] * factor, self.size[1] * factor))

    def moved(self, x: float, y: float) -> Region:
        """By shares of its size."""
        return Region((self.centre[0] + x * self.size[0], self.centre[1] + y * self.size[1]), self.size)

    def of_aspect(self, crop_hw: Hw) -> Region:
        """Enlarged to the aspect of a crop.

        >>> Region((5, 5), (10.0, 40.0)).of_aspect((256, 192)).size
        (30.0, 40.0)
        """
        (width, height), aspect = self.size, crop_hw[1] / crop_hw[0]
        size = (width, width / aspect) if width > height * aspect else (height * aspect, height)
        return Region(self.centre, size)


def region_of(box: Xywh) -> Region:
    """The padded box of a person. Raises ValueError for one of no area.

    >>> region_of((10, 20, 40, 80))
    Region(centre=(30.0, 60.0), size=(50.0, 100.0))
    """
    x, y, width, height = box
    if not (all(map(math.isfinite, box)) and width > 0 and height > 0):
        raise ValueError(f"a person's box is x y width height {box}, expected finite ones of some area")
    return Region((x + width / 2, y + height / 2), (width * PADDING, height * PADDING))


def half_region(
    keypoints_K3: npt.NDArray[np.float32], upper_body: tuple[int, ...], prefers_upper: bool
) -> Region | None:
    """The region around the upper or the lower keypoints; None where too few are visible for either.

    Args:
        prefers_upper: which half is taken where both would do.
    """
    visible = [number for number in range(len(keypoints_K3)) if keypoints_K3[number, 2] > 0]
    upper = [number for number in visible if number in upper_body]
    lower = [number for number in visible if number not in upper_body]
    if len(visible) < MIN_VISIBLE or (len(upper) < MIN_UPPER and len(lower) < MIN_LOWER):
        return None
    if len(lower) < MIN_LOWER:
        chosen = upper
    elif len(upper) < MIN_UPPER:
        chosen = lower
    else:
        chosen = upper if prefers_upper else lower
    points = keypoints_K3[chosen, :2].astype(np.float64)
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    if x2 <= x1 or y2 <= y1:
        return None
    return Region(((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) * HALF_PADDING, (y2 - y1) * HALF_PADDING))


def udp_matrix(region: Region, rotation_deg: float, crop_hw: Hw) -> Matrix:
    """The map by which the edges of a region of the crop's aspect meet the centres of its outer pixels, as
    unbiased data processing (UDP, Huang et al., CVPR 2020) has it.

    >>> udp_matrix(Region((50.0, 50.0), (51.0, 51.0)), 0.0, (256, 256))
    (5.0, -0.0, -122.5, 0.0, 5.0, -122.5)
    """
    (x, y), (width, height) = region.centre, region.size
    angle = math.radians(rotation_deg)
    cos, sin = round(math.cos(angle), _DIGITS), round(math.sin(angle), _DIGITS)
    kx, ky = (crop_hw[1] - 1) / width, (crop_hw[0] - 1) / height
    return (
        *(cos * kx, -sin * kx, kx * (-x * cos + y * sin + width / 2)),
        *(sin * ky, cos * ky, ky * (-x * sin - y * cos + height / 2)),
    )
