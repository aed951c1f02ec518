"""A view: all transformations of an image before the backbone, as numbers that replay exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.views.colour import Colour

IGNORE = 255
"""The label of pixels that belong to no class, padding among them."""
MULTIPLE_PX = 32
"""Padded sizes are multiples of the coarsest stride."""
VIEWS_REVISION = 2
"""Part of the identity of stores of crops; raised whenever the code of views, draws or colour gives other
numbers. Since 2 the crop alone is resized, and 3 % of its values differ from those of 1, by 1 or 2 of 255."""
WHOLE_REVISION = 1
"""That of views of whole images, whose numbers are those of revision 1."""
REVISIONS = {
    1: "Pillow bilinear with antialias, whole image",
    2: "Pillow bilinear with antialias, crop by box",
}
"""The resize of each revision; all can be replayed."""

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Interpolations of views by name: Pillow's, with antialias."""
INTERPOLATIONS = tuple(RESAMPLING)
USUAL_INTERPOLATION = INTERPOLATIONS[0]
"""Of views whose identity names none."""

VIEW_PARAMS = (
    *("resized_y", "resized_x", "crop_y", "crop_x", "valid_y", "valid_x", "padded_y", "padded_x", "flip"),
    *("brightness", "contrast", "contrast_first", "saturation", "hue"),
)
"""The columns of rows/params."""

Hw = tuple[int, int]
Number = TypeVar("Number", bound=np.generic)
"""Of the values of a map: labels, depths."""


def replay_rule(revision: int | None = None) -> dict[str, object]:
    """How views are replayed, for identities.

    Args:
        revision: of REVISIONS; None: VIEWS_REVISION.
    """
    revision = VIEWS_REVISION if revision is None else revision
    return {
        "order": "resize, crop, flip, colour, pad",
        "image_resize": REVISIONS.get(revision, REVISIONS[max(REVISIONS)]),
        "label_resize": "nearest, source cell floor((i + 1/2) * from / to)",
        "padding": f"right and bottom to multiples of {MULTIPLE_PX} px, zero after normalisation",
        "revision": revision,
    }


def revision_of(views_identity: Mapping[str, Any]) -> int:
    """The revision by which the views of a store are replayed, by the `views` of its identity."""
    return int(views_identity.get("replay", {}).get("revision", 1))


def interpolation_of(views_identity: Mapping[str, Any]) -> str:
    """What the images of a store were resized with, by the `views` of its identity."""
    return str(views_identity.get("interpolation", USUAL_INTERPOLATION))


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Resize, then crop, flip, colour and padding. Raises ValueError for sizes that contradict each other."""

    resized_hw: Hw
    """The whole image after resizing, in pixels."""
    crop_yx: Hw = (0, 0)
    """The crop's upper left corner in the resized image."""
    valid_hw: Hw
    """Size of the crop."""
    padded_hw: Hw
    """Size of the result: the crop, and padding to its right and below."""
    flip: bool = False
    """Whether the crop is mirrored left to right, before it is padded."""
    colour: Colour = field(default_factory=Colour)
    revision: int | None = field(default=None, compare=False)
    """How it is replayed, see REVISIONS; None: as today. Of a store, not of a row: no parameter."""
    interpolation: str = field(default=USUAL_INTERPOLATION, compare=False)
    """Of the resize, a name of RESAMPLING. Of a store too."""

    def __post_init__(self) -> None:
        for resized, start, valid, padded in zip(
            self.resized_hw, self.crop_yx, self.valid_hw, self.padded_hw, strict=True
        ):
            if not (start >= 0 and 1 <= valid <= padded and start + valid <= resized):
                raise ValueError(f"a view crops {valid} of {resized} px from {start} and pads to {padded}")

    def to_params(self) -> npt.NDArray[np.float64]:
        """float64 (P,), named by VIEW_PARAMS; exact."""
        colour = self.colour
        return np.array(
            [
                *(*self.resized_hw, *self.crop_yx, *self.valid_hw, *self.padded_hw, self.flip),
                *(colour.brightness, colour.contrast, colour.contrast_first, colour.saturation, colour.hue),
            ],
            dtype=np.float64,
        )

    @classmethod
    def from_params(cls, params: Sequence[float] | npt.NDArray[Any]) -> View:
        """The inverse of to_params. Raises ValueError for another number of them, or impossible sizes."""
        if len(params) != len(VIEW_PARAMS):
            raise ValueError(f"{len(params)} view parameters, expected {len(VIEW_PARAMS)}")
        ry, rx, cy, cx, vy, vx, py, px = (int(p) for p in params[:8])
        flip, brightness, contrast, contrast_first, saturation, hue = (float(p) for p in params[8:])
        return cls(
            resized_hw=(ry, rx),
            crop_yx=(cy, cx),
            valid_hw=(vy, vx),
            padded_hw=(py, px),
            flip=bool(flip),
            colour=Colour(brightness, contrast, bool(contrast_first), saturation, int(hue)),
        )

    def of_store(self, views_identity: Mapping[str, Any]) -> View:
        """The same view, replayed as a store was made, by the `views` of its identity."""
        interpolation = interpolation_of(views_identity)
        return replace(self, revision=revision_of(views_identity), interpolation=interpolation)

    def apply_image(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The view of uint8 RGB (H, W, 3): uint8 (padded H, W, 3), zero where it is padding."""
        return self.apply_picture(Image.fromarray(rgb))

    def apply_picture(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        """As `apply_image`, of an image of Pillow's in mode RGB, which is not copied."""
        valid_y, valid_x = self.valid_hw
        crop = self.cropped(picture)
        out = np.zeros((*self.padded_hw, 3), dtype=np.uint8)
        out[:valid_y, :valid_x] = self.colour.apply(crop[:, ::-1] if self.flip else crop)
        return out

    def cropped(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        """The resized crop alone, neither flipped nor distorted: uint8 (valid H, W, 3)."""
        return np.asarray(self._crop_whole(picture) if self.revision == 1 else self._crop_alone(picture))

    def _crop_whole(self, picture: Image.Image) -> Image.Image:
        (height, width), (y, x), (valid_y, valid_x) = self.resized_hw, self.crop_yx, self.valid_hw
        resized = picture.resize((width, height), RESAMPLING[self.interpolation])
        return resized.crop((x, y, x + valid_x, y + valid_y))

    def _crop_alone(self, picture: Image.Image) -> Image.Image:
        """What `_crop_whole` gives, but for the rounding of the box: the filter sees beyond it."""
        ends = [
            (start * here / resized, min((start + valid) * here / resized, here))
            for start, valid, resized, here in zip(
                self.crop_yx, self.valid_hw, self.resized_hw, (picture.height, picture.width), strict=True
            )
        ]
        (top, bottom), (left, right) = ends
        size = (self.valid_hw[1], self.valid_hw[0])
        return picture.resize(size, RESAMPLING[self.interpolation], box=(left, top, right, bottom))

    def apply_labels(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The same view of a label map uint8 (H, W): uint8 (padded H, W), 255 where it is padding."""
        return self.apply_map(labels, IGNORE)

    def apply_map(self, values: npt.NDArray[Number], padding: int) -> npt.NDArray[Number]:
        """The same view of one value a pixel (H, W), of any type: (padded H, W). Values are picked by the
        nearest cell, never mixed.

        Args:
            padding: the value of pixels that are padding, which means that nothing is known there.
        """
        crop = label_crop(values, self.resized_hw, self.crop_yx, self.valid_hw)
        out = np.full(self.padded_hw, padding, dtype=values.dtype)
        out[: self.valid_hw[0], : self.valid_hw[1]] = crop[:, ::-1] if self.flip else crop
        return out


def label_crop(labels: npt.NDArray[Number], resized_hw: Hw, crop_yx: Hw, size_hw: Hw) -> npt.NDArray[Number]:
    """A crop of a label map, or another map of one value a pixel, (H, W), as it would be after resizing to
    `resized_hw` by nearest neighbour."""
    rows, columns = (
        (2 * np.arange(start, start + size, dtype=np.int64) + 1) * here // (2 * resized)
        for here, resized, start, size in zip(labels.shape, resized_hw, crop_yx, size_hw, strict=True)
    )
    crop: npt.NDArray[Number] = labels.take(rows, 0).take(columns, 1)  # half the time of both at once
    return crop


def padded_up(size_hw: Hw) -> Hw:
    """Each side, up to the next multiple of 32 px."""
    height, width = (-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in size_hw)
    return height, width


def keep_ratio(original_hw: Hw, long_px: int, short_px: int) -> Hw:
    """The largest size of the same aspect within a long and a short side, as mmcv's rescale_size.

    Source: mmcv@0395ab2 mmcv/image/geometric.py; a side never becomes 0 here.

    >>> keep_ratio((512, 683), 2048, 512), keep_ratio((300, 400), 2048, 512), keep_ratio((1, 9000), 2048, 512)
    ((512, 683), (512, 683), (1, 2048))
    """
    factor = min(long_px / max(original_hw), short_px / min(original_hw))
    height, width = (max(1, int(side * factor + 0.5)) for side in original_hw)
    return height, width
