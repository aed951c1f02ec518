"""A view of a video: which of its frames, and what is done to each, as numbers that replay exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.sources.record import DECODER_NAMES
from extract.views.view import (
    MULTIPLE_PX,
    RESAMPLING,
    USUAL_INTERPOLATION,
    Hw,
    View,
    interpolation_of,
)

CLIP_FRAMES = 16
"""T, the frames of a view: those of the frozen video heads of Lin et al., NeurIPS 2022."""
CLIP_VIEWS_REVISION = 1
"""Part of every video store's identity; raised whenever the code of clip views gives other numbers."""

CLIP_PARAMS = (
    *("resized_y", "resized_x", "crop_y", "crop_x", "crop_height", "crop_width"),
    *("valid_y", "valid_x", "padded_y", "padded_x", "flip", "decoder"),
    *(f"frame_{number}" for number in range(CLIP_FRAMES)),
)
"""The columns of rows/params: of a store of clips."""

Pixels = npt.NDArray[np.uint8]


def clip_rule() -> dict[str, object]:
    """How views of videos are replayed, for identities."""
    return {
        "order": "resize, crop, resize, flip, pad",
        "resize": "Pillow bilinear with antialias, whole frame, then the crop",
        "padding": f"right and bottom to multiples of {MULTIPLE_PX} px, zero after normalisation",
        "revision": CLIP_VIEWS_REVISION,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipView(View):
    """Frames; of each: resize, crop, resize the crop, flip, pad. Raises ValueError for sizes that contradict
    each other."""

    crop_hw: Hw
    """Size of the crop in the resized frame; it is resized once more, to `valid_hw`."""
    frames: tuple[int, ...]
    """CLIP_FRAMES numbers of frames in the order of showing; some come twice where the video is short."""
    decoder: str = DECODER_NAMES[-1]
    """That reads the frames. Where decord fails on a video, PyAV reads it instead, to the same pixels."""

    def __post_init__(self) -> None:
        for resized, start, crop, valid, padded in zip(
            self.resized_hw, self.crop_yx, self.crop_hw, self.valid_hw, self.padded_hw, strict=True
        ):
            if not (start >= 0 and crop >= 1 and start + crop <= resized and 1 <= valid <= padded):
                raise ValueError(
                    f"a view crops {crop} of {resized} px from {start}, resizes to {valid}, pads to {padded}"
                )
        if len(self.frames) != CLIP_FRAMES or min(self.frames) < 0:
            raise ValueError(f"frames {self.frames}, expected {CLIP_FRAMES} numbers from 0")

    def to_params(self) -> npt.NDArray[np.float64]:
        """float64 (P,), named by CLIP_PARAMS; exact."""
        sizes = (*self.resized_hw, *self.crop_yx, *self.crop_hw, *self.valid_hw, *self.padded_hw)
        decoder = DECODER_NAMES.index(self.decoder)
        return np.array([*sizes, self.flip, decoder, *self.frames], dtype=np.float64)

    @classmethod
    def from_params(cls, params: Sequence[float] | npt.NDArray[Any]) -> ClipView:
        """The inverse of to_params. Raises ValueError for another number of them, or impossible sizes."""
        if len(params) != len(CLIP_PARAMS):
            raise ValueError(f"{len(params)} view parameters, expected {len(CLIP_PARAMS)}")
        ry, rx, cy, cx, ch, cw, vy, vx, py, px, flip, decoder, *frames = (int(p) for p in params)
        return cls(
            resized_hw=(ry, rx),
            crop_yx=(cy, cx),
            crop_hw=(ch, cw),
            valid_hw=(vy, vx),
            padded_hw=(py, px),
            flip=bool(flip),
            decoder=DECODER_NAMES[decoder],
            frames=tuple(frames),
        )

    def of_store(self, views_identity: Mapping[str, Any]) -> ClipView:
        """As of `View`; views of clips have had one revision."""
        return replace(self, interpolation=interpolation_of(views_identity))

    def apply_image(self, rgb: Pixels) -> Pixels:
        """The view of one frame, uint8 RGB (H, W, 3): uint8 (padded H, W, 3), zero where it is padding."""
        return self.finish(resized(rgb, self.resized_hw, self.interpolation))

    def finish(self, resized_rgb: Pixels) -> Pixels:
        """What follows the first resize, which views of one frame may share."""
        (y, x), (height, width) = self.crop_yx, self.crop_hw
        crop = resized(resized_rgb[y : y + height, x : x + width], self.valid_hw, self.interpolation)
        out = np.zeros((*self.padded_hw, 3), dtype=np.uint8)
        out[: self.valid_hw[0], : self.valid_hw[1]] = crop[:, ::-1] if self.flip else crop
        return out


def resized(rgb: Pixels, size_hw: Hw, interpolation: str = USUAL_INTERPOLATION) -> Pixels:
    """uint8 RGB (H, W, 3) at another size."""
    if rgb.shape[:2] == size_hw:
        return rgb
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize(size_hw[::-1], RESAMPLING[interpolation]))


def render_clips(frames: Iterable[tuple[int, Pixels]], views: Sequence[ClipView]) -> list[Pixels]:
    """Views of one video, of which each frame is decoded, and resized to each size, once.

    Args:
        frames: yields (number, uint8 RGB (H, W, 3)), every frame of the views once.
        views: of the video, of one interpolation.

    Returns:
        uint8 (T, padded H, W, 3) of each view.
    """
    clips = [np.empty((len(view.frames), *view.padded_hw, 3), dtype=np.uint8) for view in views]
    for number, rgb in frames:
        of_size: dict[Hw, Pixels] = {}
        for view, clip in zip(views, clips, strict=True):
            places = [place for place, frame in enumerate(view.frames) if frame == number]
            if not places:
                continue
            if view.resized_hw not in of_size:
                of_size[view.resized_hw] = resized(rgb, view.resized_hw, view.interpolation)
            clip[places] = view.finish(of_size[view.resized_hw])
    return clips
