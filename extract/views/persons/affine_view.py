"""A view of a person: an affine map of the source onto a crop, as numbers that replay exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.views.persons.affine_map import Matrix, Points, applied, inverse, points_in_source
from extract.views.persons.crop_changes import CropChanges
from extract.views.persons.person_box import Xywh
from extract.views.view import MULTIPLE_PX, RESAMPLING, View, interpolation_of

AFFINE_VIEWS_REVISION = 1
"""Part of the identity of every store of such views; raised whenever the code gives other numbers."""

AFFINE_PARAMS = (
    *("xx", "xy", "x0", "yx", "yy", "y0"),
    *("box_x", "box_y", "box_width", "box_height", "half_body"),
    *("valid_y", "valid_x", "padded_y", "padded_x", "flip"),
    *("brightness", "contrast", "saturation", "hue", "holes"),
)
"""The columns of rows/params of a store of such views: the map's two rows first."""

Pixels = npt.NDArray[np.uint8]


def affine_rule() -> dict[str, object]:
    """How such views are replayed, for identities."""
    return {
        "order": "affine map, flip, colour, holes, pad",
        "map": "UDP: the edges of the region meet the centres of the outer pixels",
        "resize": "Pillow bilinear without antialias, black beyond the source",
        "padding": f"right and bottom to multiples of {MULTIPLE_PX} px, zero after normalisation",
        "revision": AFFINE_VIEWS_REVISION,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class AffineView(View):
    """An affine map of the source, a flip, colours and holes. Raises ValueError for a map without an inverse,
    or impossible sizes."""

    matrix: Matrix
    """(x, y) of the source, in pixel centres, -> (x, y) of the crop before it is flipped."""
    box: Xywh
    """Of the person in the source: x, y, width, height in pixels."""
    half_body: bool = False
    """Whether it shows half a body on purpose."""
    changes: CropChanges = field(default_factory=CropChanges)

    def __post_init__(self) -> None:
        View.__post_init__(self)  # not super(): slots make a new class of this one
        inverse(self.matrix)

    def to_params(self) -> npt.NDArray[np.float64]:
        """float64 (P,), named by AFFINE_PARAMS; exact."""
        sizes = (*self.valid_hw, *self.padded_hw, self.flip)
        return np.array(
            [*self.matrix, *self.box, self.half_body, *sizes, *self.changes.to_params()], dtype=np.float64
        )

    @classmethod
    def from_params(cls, params: Sequence[float] | npt.NDArray[Any]) -> AffineView:
        """The inverse of to_params. Raises ValueError for another number of them, or impossible ones."""
        if len(params) != len(AFFINE_PARAMS):
            raise ValueError(f"{len(params)} view parameters, expected {len(AFFINE_PARAMS)}")
        numbers = [float(p) for p in params]
        xx, xy, x0, yx, yy, y0, x, y, width, height, half = numbers[:11]
        valid_y, valid_x, padded_y, padded_x, flip = (int(p) for p in numbers[11:16])
        return cls(
            resized_hw=(valid_y, valid_x),
            valid_hw=(valid_y, valid_x),
            padded_hw=(padded_y, padded_x),
            flip=bool(flip),
            matrix=(xx, xy, x0, yx, yy, y0),
            box=(x, y, width, height),
            half_body=bool(half),
            changes=CropChanges.from_params(numbers[16:]),
        )

    def of_store(self, views_identity: Mapping[str, Any]) -> AffineView:
        """As of `View`; such views have had one revision."""
        return replace(self, interpolation=interpolation_of(views_identity))

    def apply_image(self, rgb: Pixels) -> Pixels:
        return self.apply_picture(Image.fromarray(rgb))

    def apply_picture(self, picture: Image.Image) -> Pixels:
        """The view of an image of Pillow's in mode RGB: uint8 (padded H, W, 3), zero where it is padding."""
        # Pillow samples at the corner of a pixel that our map has at its centre: + 1/2 before and after.
        xx, xy, x0, yx, yy, y0 = inverse(self.matrix)
        data = (xx, xy, x0 + 0.5 - (xx + xy) / 2, yx, yy, y0 + 0.5 - (yx + yy) / 2)
        height, width = self.valid_hw
        crop: Pixels = np.asarray(
            picture.transform(
                (width, height), Image.Transform.AFFINE, data, resample=RESAMPLING[self.interpolation]
            )
        )
        out = np.zeros((*self.padded_hw, 3), dtype=np.uint8)
        out[:height, :width] = self.changes.apply(crop[:, ::-1] if self.flip else crop)
        return out

    def apply_points(self, points_K2: Points) -> Points:
        """Where points of the source lie in the view, float64 (K, 2) of x and y; those beside it too."""
        moved = applied(self.matrix, points_K2)
        if self.flip:
            moved[:, 0] = self.valid_hw[1] - 1 - moved[:, 0]
        return moved

    def points_in_source(self, points_K2: Points) -> Points:
        """The inverse of `apply_points`."""
        return points_in_source(self.matrix, self.flip, self.valid_hw[1], points_K2)
