"""View recipes of video: random clips to train on, clips times crops to test on.

Offsets are SampleFrames of Video Swin (Video-Swin-Transformer@db018fb mmaction/datasets/pipelines/
loading.py), crops its RandomResizedCrop and ThreeCrop (augmentations.py beside it). Clips have 16 frames, as
in Lin et al. (NeurIPS 2022), of every fourth frame: they span what Video Swin's 32 frames, every second, do.
Frames beyond the end begin again at the first. Deviation: frames are resized by Pillow with antialiasing
instead of cv2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from extract.sources.record import DECODER_NAMES, Record
from extract.swin.window_rule import WindowRule
from extract.views.clip_view import CLIP_FRAMES, ClipView, clip_rule
from extract.views.crop_size import CropSize, check_crop, covering, crop_hw, size_identity
from extract.views.recipes import RecipeMaker, SeededViews, ViewRecipe, check_short_side, draw_corner
from extract.views.seeded_draws import Draws, ViewDraws
from extract.views.view import Hw, keep_ratio

CROP_PX = 224
SHORT_TO_CROP = 256 / 224
"""Training clips are resized to a short side so much longer than the crop's."""
STRIDE = 4
MAX_SIDE_PX = 1 << 12
_ANY_PX = 1 << 30
CLIP_PLACES = ("segments", "ends")
"""segments: at the centres of as many equal segments, as Video Swin (of 300 frames 29, 88, 148, 207). ends:
from the first possible clip to the last one, as mmaction2 1.x and earlier versions here (0, 80, 159, 239)."""


def frame_numbers(start: int, frames: int, stride: int = STRIDE) -> tuple[int, ...]:
    """CLIP_FRAMES frames from `start`, every `stride`-th; beyond the last of `frames` from the first again.

    >>> frame_numbers(3, 40)[:11]
    (3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 3)
    """
    return tuple((start + stride * number) % frames for number in range(CLIP_FRAMES))


def last_start(frames: int, stride: int = STRIDE) -> int:
    """The largest offset of a clip that does not loop; 0 for short videos.

    >>> last_start(300), last_start(61), last_start(10)
    (239, 0, 0)
    """
    return max(0, frames - (CLIP_FRAMES - 1) * stride - 1)


def _check_sizes(crop_px: CropSize, short_px: int) -> None:
    check_crop(crop_px, MAX_SIDE_PX)
    check_short_side(short_px, MAX_SIDE_PX)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomClips(SeededViews):
    """Training views: a clip at a random start, a random part of its frames, flip."""

    frames = CLIP_FRAMES
    name: str
    crop_px: CropSize = CROP_PX
    """Side of a square view, or height and width; multiples of 32."""
    short_px: int = round(CROP_PX * SHORT_TO_CROP)
    """Short side of the frames that the crop is taken of."""
    stride: int = STRIDE
    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    """Width to height of the crop, as a share of the view's own."""
    tries: int = 10
    flip: float = 0.5
    """Probability."""

    def __post_init__(self) -> None:
        _check_sizes(self.crop_px, self.short_px)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            **size_identity(self.crop_px),
            "short_px": self.short_px,
            "frames": self.frames,
            "stride": self.stride,
            "area_range": list(self.area_range),
            "aspect_range": list(self.aspect_range),
            "tries": self.tries,
            "flip": self.flip,
            "replay": clip_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> ClipView:
        draws = ViewDraws(dataset, record.key, index, seed)
        count = record.frames or 1
        # mmaction draws as if frames were skipped behind the last one too
        last = max(0, count - CLIP_FRAMES * self.stride)
        scaled = keep_ratio(record.original_hw, _ANY_PX, self.short_px)
        corner, part = self._crop(draws("crop"), scaled)
        return ClipView(
            resized_hw=scaled,
            crop_yx=corner,
            crop_hw=part,
            valid_hw=crop_hw(self.crop_px),
            padded_hw=crop_hw(self.crop_px),
            flip=draws("flip").happens(self.flip),
            frames=frame_numbers(draws("clip").integer(last + 1), count, self.stride),
            decoder=record.decoder or DECODER_NAMES[-1],
        )

    def _crop(self, draws: Draws, scaled: Hw) -> tuple[Hw, Hw]:
        """Corner and size; the largest part of the view's aspect in the middle where no try fits."""
        view_h, view_w = crop_hw(self.crop_px)
        for _ in range(self.tries):
            area = draws.uniform(*self.area_range) * scaled[0] * scaled[1]
            aspect = math.exp(draws.uniform(*map(math.log, self.aspect_range))) * (view_w / view_h)
            height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 1 <= height <= scaled[0] and 1 <= width <= scaled[1]:
                return draw_corner(draws, scaled, (height, width)), (height, width)
        height, width = _fitting_part(scaled, (view_h, view_w))
        return ((scaled[0] - height) // 2, (scaled[1] - width) // 2), (height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipsTimesCrops:
    """Test views: clips spread over the video, of each so many crops along the long side; the same for every
    seed. View `clip * crops + crop`; of three crops the first is the left or upper one, then the middle."""

    frames = CLIP_FRAMES
    looks_at_truth = False
    name: str
    clips: int
    crops: int
    crop_px: CropSize = CROP_PX
    """Side of a square view, or height and width; multiples of 32."""
    short_px: int = CROP_PX
    """Short side of the frames that the crop is taken of."""
    stride: int = STRIDE
    places: str = CLIP_PLACES[0]
    """Where along the video the clips begin, of CLIP_PLACES; part of the identity, absent for `ends`."""

    def __post_init__(self) -> None:
        _check_sizes(self.crop_px, self.short_px)
        if self.places not in CLIP_PLACES:
            raise ValueError(f"places {self.places!r}, expected one of {', '.join(CLIP_PLACES)}")
        least_px = min(crop_hw(self.crop_px))
        if self.short_px < least_px:
            raise ValueError(f"a short side of {self.short_px} px is less than the crop's {least_px}")

    @property
    def fixed_count(self) -> int | None:
        return self.clips * self.crops

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            **size_identity(self.crop_px),
            "short_px": self.short_px,
            "frames": self.frames,
            "stride": self.stride,
            "clips": self.clips,
            "crops": self.crops,
            **({} if self.places == "ends" else {"places": self.places}),
            "replay": clip_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> ClipView:
        clip, crop = divmod(index, self.crops)
        count = record.frames or 1
        size = crop_hw(self.crop_px)
        scaled = covering(keep_ratio(record.original_hw, _ANY_PX, self.short_px), size)
        free = scaled[0] - size[0], scaled[1] - size[1]
        middle = free[0] // 2, free[1] // 2
        step = crop if self.crops > 1 else 1
        corner = (middle[0], step * middle[1]) if free[1] >= free[0] else (step * middle[0], middle[1])
        return ClipView(
            resized_hw=scaled,
            crop_yx=corner,
            crop_hw=size,
            valid_hw=size,
            padded_hw=size,
            frames=frame_numbers(self._start(clip, count), count, self.stride),
            decoder=record.decoder or DECODER_NAMES[-1],
        )

    def _start(self, clip: int, frames: int) -> int:
        if self.places == "segments":
            # As if frames were skipped behind the last one too; videos shorter than that give 0.
            segment = max(0, frames - CLIP_FRAMES * self.stride + 1) / self.clips
            return int(clip * segment + segment / 2)
        last = last_start(frames, self.stride)
        return last // 2 if self.clips == 1 else round(clip * (last / (self.clips - 1)))


def _fitting_part(whole: Hw, view: Hw) -> Hw:
    """The largest part of the view's aspect, at least a pixel a side.

    >>> _fitting_part((90, 160), (224, 224)), _fitting_part((90, 160), (64, 128))
    ((90, 90), (80, 160))
    """
    factor = min(whole[0] / view[0], whole[1] / view[1])
    height, width = (max(1, min(w, round(v * factor))) for w, v in zip(whole, view, strict=True))
    return height, width


def random_clips(name: str, crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    """Training views of a crop size and a short side before the crop, in pixels; None: the papers'."""
    crop_px = CROP_PX if crop_size is None else crop_size
    short_px = round(min(crop_hw(crop_px)) * SHORT_TO_CROP) if short_side is None else short_side
    return RandomClips(name=name, crop_px=crop_px, short_px=short_px)


def _test(
    name: str, clips: int, crops: int, places: str, crop_size: CropSize | None, short_side: int | None
) -> ViewRecipe:
    crop_px = next(px for px in (crop_size, short_side, CROP_PX) if px is not None)
    short_px = min(crop_hw(crop_px)) if short_side is None else short_side
    return ClipsTimesCrops(
        name=name, clips=clips, crops=crops, crop_px=crop_px, short_px=short_px, places=places
    )


TEST_RECIPES: Mapping[str, RecipeMaker] = {
    "4x3": partial(_test, "4x3", 4, 3, "segments"),
    "single": partial(_test, "single", 1, 1, "segments"),
    # Under the names in identities of earlier versions, whose stores they continue.
    "4x3-ends": partial(_test, "4x3", 4, 3, "ends"),
    "single-ends": partial(_test, "single", 1, 1, "ends"),
}
"""Makers of recipes from (crop size, short side before the crop), None for the papers' 224 px."""
VIEW_RECIPES: Mapping[str, RecipeMaker] = {"k400": partial(random_clips, "k400"), **TEST_RECIPES}
TRAINING_VIEWS = ("k400",)
TEST_VIEWS = ("single", "4x3", "single-ends", "4x3-ends")
DEFAULT_LEVELS = ("last",)
"""What a store keeps by default: the last map, after the backbone's own norm where it has one (p5n of a
Swin)."""
DEFAULT_WINDOW_RULE: WindowRule = "cover"
"""As SwinTransformer/Video-Swin-Transformer."""
DEFAULT_WINDOWS = {224: 7}
"""Lin et al. (NeurIPS 2022): every map of a frame of 224 px divides into windows of 7."""
