"""A view of a photograph for classification: a box of the source, resized, its crop, as numbers that replay
exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.views.view import INTERPOLATIONS, MULTIPLE_PX, RESAMPLING, Hw, View

CROP_VIEWS_REVISION = 1
"""Part of the identity of every store of such views; raised whenever the code gives other numbers."""

CROP_PARAMS = (
    *("source_y", "source_x", "source_height", "source_width", "resized_y", "resized_x", "crop_y", "crop_x"),
    *("valid_y", "valid_x", "padded_y", "padded_x", "flip", "interpolation"),
)
"""The columns of rows/params of a store of such views."""

Pixels = npt.NDArray[np.uint8]


def crop_rule() -> dict[str, object]:
    """How such views are replayed, for identities."""
    return {
        "order": "crop of the source, resize, crop, flip, pad",
        "resize": "Pillow with antialias",
        "padding": f"right and bottom to multiples of {MULTIPLE_PX} px, zero after normalisation",
        "revision": CROP_VIEWS_REVISION,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class CropView(View):
    """A box of the source is resized to `resized_hw`; of that a crop is flipped and padded. Raises ValueError
    for sizes that contradict each other."""

    source_yx: Hw = (0, 0)
    """Upper left corner of the box in the source, in pixels."""
    source_hw: Hw
    """Size of the box."""
    interpolation: str = INTERPOLATIONS[1]

    def __post_init__(self) -> None:
        View.__post_init__(self)  # not super(): slots make a new class of this one
        if min(self.source_yx) < 0 or min(self.source_hw) < 1 or self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"a view resizes {self.source_hw} px from {self.source_yx} of its source, "
                f"{self.interpolation}"
            )

    def to_params(self) -> npt.NDArray[np.float64]:
        """float64 (P,), named by CROP_PARAMS; exact."""
        sizes = (*self.source_yx, *self.source_hw, *self.resized_hw, *self.crop_yx)
        kind = INTERPOLATIONS.index(self.interpolation)
        return np.array([*sizes, *self.valid_hw, *self.padded_hw, self.flip, kind], dtype=np.float64)

    @classmethod
    def from_params(cls, params: Sequence[float] | npt.NDArray[Any]) -> CropView:
        """The inverse of to_params. Raises ValueError for another number of them, or impossible sizes."""
        if len(params) != len(CROP_PARAMS):
            raise ValueError(f"{len(params)} view parameters, expected {len(CROP_PARAMS)}")
        sy, sx, sh, sw, ry, rx, cy, cx, vy, vx, py, px, flip, kind = (int(p) for p in params)
        if not 0 <= kind < len(INTERPOLATIONS):
            raise ValueError(f"interpolation {kind}, expected 0 to {len(INTERPOLATIONS) - 1}")
        return cls(
            source_yx=(sy, sx),
            source_hw=(sh, sw),
            resized_hw=(ry, rx),
            crop_yx=(cy, cx),
            valid_hw=(vy, vx),
            padded_hw=(py, px),
            flip=bool(flip),
            interpolation=INTERPOLATIONS[kind],
        )

    def apply_picture(self, picture: Image.Image) -> Pixels:
        return self.apply_image(np.asarray(picture))

    def apply_image(self, rgb: Pixels) -> Pixels:
        """The view of uint8 RGB (H, W, 3): uint8 (padded H, W, 3), zero where it is padding.

        Raises ValueError where the image does not hold the box.
        """
        (y, x), (height, width) = self.source_yx, self.source_hw
        if y + height > rgb.shape[0] or x + width > rgb.shape[1]:
            raise ValueError(
                f"a view of {height}x{width} px from {self.source_yx} of an image of "
                f"{rgb.shape[0]}x{rgb.shape[1]}"
            )
        box = Image.fromarray(np.ascontiguousarray(rgb[y : y + height, x : x + width]))
        if self.resized_hw != self.source_hw:
            box = box.resize(self.resized_hw[::-1], RESAMPLING[self.interpolation])
        (top, left), (valid_y, valid_x) = self.crop_yx, self.valid_hw
        crop = np.asarray(box)[top : top + valid_y, left : left + valid_x]
        out = np.zeros((*self.padded_hw, 3), dtype=np.uint8)
        out[:valid_y, :valid_x] = crop[:, ::-1] if self.flip else crop
        return out
