"""View recipes: which views of a record a store holds. Each data set's module names its own.

RandomCrops is mmseg's training pipeline (mmsegmentation@02677ac configs/_base_/datasets/ade20k.py),
WholeImages its whole-image test. Deviations from mmseg: images are resized by Pillow with antialiasing (as
Mask2Former does) instead of cv2, labels by the nearest cell centre, and test views are padded to multiples of
32 with zeros after normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from extract.sources.record import Record
from extract.views.colour import colour_params, colour_rule, draw_colour
from extract.views.crop_size import CropSize, check_crop, crop_hw, size_in_identity, within_crop
from extract.views.seeded_draws import Draws, Floats, Ints, ManyViewDraws, ViewDraws
from extract.views.view import (
    IGNORE,
    REVISIONS,
    VIEW_PARAMS,
    WHOLE_REVISION,
    Hw,
    View,
    keep_ratio,
    label_crop,
    padded_up,
    replay_rule,
)

CROP_PX = 512
SHORT_PX = 512
LONG_TO_SHORT = 4  # the papers' (2048, 512)
MAX_SIDE_PX = 1 << 14


class ViewRecipe(Protocol):
    """How the views of a record are chosen."""

    @property
    def name(self) -> str: ...

    @property
    def fixed_count(self) -> int | None:
        """Views of a record, where the recipe says so; None: as many as are asked for, each with a seed."""

    @property
    def looks_at_truth(self) -> bool:
        """Whether `view` needs the truth to choose."""

    @property
    def frames(self) -> int | None:
        """Frames of a view of a video; None for images."""

    def identity(self) -> dict[str, Any]:
        """Everything but record and seed that decides the pixels of a view."""

    def view(
        self,
        dataset: str,
        record: Record,
        index: int,
        seed: int,
        truth: Any = None,
    ) -> View:
        """View `index` of a record, whatever its other views are.

        Args:
            dataset: name; with the record's key, index and seed it decides every random choice.
            record: its key, its original size and, of a video, its frames.
            index: from 0.
            seed: of the extraction; test recipes ignore it.
            truth: see `Dataset.parse_annotation`, for recipes that look at it; without it padded and valid
            size are the same, but the crop may lie elsewhere.
        """


RecipeMaker = Callable[[int | Hw | None, int | None], ViewRecipe]
"""Makes a recipe of a crop (the side of a square, or height and width) and a short side, in pixels; None: the
paper's."""


class SeededViews:
    """Base of training recipes: any number of views, each drawn from its own seed.

    Recipes of crops have a method `drawn` beside `view`, for planning: the parameters of view `index` of many
    records, float64 (records, P), of their keys and original sizes, int (records, 2). It draws what `view`
    draws, in an eighth of its time.
    """

    __slots__ = ()
    fixed_count: ClassVar[int | None] = None
    looks_at_truth: ClassVar[bool] = False
    frames: ClassVar[int | None] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomCrops(SeededViews):
    """mmseg's training views: rescale, crop, flip, colour. All are padded to the crop's size: one bin."""

    name: str
    crop_px: CropSize = CROP_PX
    """Side of a square crop, or height and width; multiples of 32."""
    short_px: int | None = None
    """Short side at ratio 1; None: the crop's. The long side is at most four times as long."""
    ratio_range: tuple[float, float] = (0.5, 2.0)
    cat_max_ratio: float | None = 0.75
    """A crop in which one class has this share of the labelled pixels or more is drawn again. None: truth
    that is no label map, such as depth, decides nothing."""
    tries: int = 10
    flip: float = 0.5
    """Probability."""
    revision: int | None = None
    """By which its views are replayed; None: today's."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)
        check_short_side(self.base_short_px, MAX_SIDE_PX)

    @property
    def looks_at_truth(self) -> bool:  # type: ignore[override]  # of the recipe, not of its class
        return self.cat_max_ratio is not None

    @property
    def base_short_px(self) -> int:
        return min(crop_hw(self.crop_px)) if self.short_px is None else self.short_px

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "scale_px": [self.base_short_px * LONG_TO_SHORT, self.base_short_px],
            "ratio_range": list(self.ratio_range),
            "crop_px": size_in_identity(self.crop_px),
            "cat_max_ratio": self.cat_max_ratio,
            "tries": self.tries,
            "flip": self.flip,
            "colour": colour_rule(),
            "replay": replay_rule(self.revision),
        }

    def view(
        self,
        dataset: str,
        record: Record,
        index: int,
        seed: int,
        truth: Any = None,
    ) -> View:
        draws = ViewDraws(dataset, record.key, index, seed)
        ratio, short_px = draws("scale").uniform(*self.ratio_range), self.base_short_px
        resized = keep_ratio(record.original_hw, int(short_px * LONG_TO_SHORT * ratio), int(short_px * ratio))
        crop = crop_hw(self.crop_px)
        valid = within_crop(resized, crop)
        return View(
            resized_hw=resized,
            crop_yx=self._crop(draws("crop"), resized, valid, truth),
            valid_hw=valid,
            padded_hw=crop,
            flip=draws("flip").happens(self.flip),
            revision=self.revision,
            colour=draw_colour(draws("colour")),
        )

    def drawn(self, dataset: str, keys: Sequence[str], original_hw: Ints, index: int, seed: int) -> Floats:
        """See `SeededViews`; without the truth."""
        draws = ManyViewDraws(dataset, keys, index, seed)
        ratio, short_px = draws("scale").uniform(*self.ratio_range), self.base_short_px
        long_px, short = (
            (short_px * LONG_TO_SHORT * ratio).astype(np.int64),
            (short_px * ratio).astype(np.int64),
        )
        factor = np.minimum(long_px / original_hw.max(axis=1), short / original_hw.min(axis=1))
        resized = rounded_sides(original_hw * factor[:, None])
        colour = colour_params(draws("colour"))
        return crop_params(draws, resized, crop_hw(self.crop_px), self.flip, colour)

    def corner(
        self, dataset: str, record: Record, index: int, seed: int, resized: Hw, valid: Hw, truth: Any
    ) -> Hw:
        """Where `view` puts its crop in an image resized to `resized`: all that the truth decides."""
        return self._crop(ViewDraws(dataset, record.key, index, seed)("crop"), resized, valid, truth)

    def _crop(self, draws: Draws, resized: Hw, valid: Hw, labels: npt.NDArray[np.uint8] | None) -> Hw:
        chosen = draw_corner(draws, resized, valid)
        if labels is not None and self.cat_max_ratio is not None and resized != valid:
            for _ in range(self.tries):
                if _is_varied(label_crop(labels, resized, chosen, valid), self.cat_max_ratio):
                    break
                chosen = draw_corner(draws, resized, valid)
        return chosen


def _is_varied(labels: npt.NDArray[np.uint8], max_share: float) -> bool:
    counts = np.bincount(labels.reshape(-1), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < max_share * counts.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeImages:
    """Test views: the whole image at several scales, padded to multiples of 32; the same for every seed."""

    frames = None
    looks_at_truth = False
    name: str
    ratios: tuple[float, ...] = (1.0,)
    flips: tuple[bool, ...] = (False,)
    short_px: int = SHORT_PX
    """Short side at ratio 1; the long side is at most four times as long."""

    def __post_init__(self) -> None:
        check_short_side(self.short_px, MAX_SIDE_PX)

    @property
    def fixed_count(self) -> int | None:
        return len(self.ratios) * len(self.flips)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "scale_px": [self.short_px * LONG_TO_SHORT, self.short_px],
            "ratios": list(self.ratios),
            "flips": list(self.flips),
            "replay": replay_rule(WHOLE_REVISION),
        }

    def view(
        self,
        dataset: str,
        record: Record,
        index: int,
        seed: int,
        truth: Any = None,
    ) -> View:
        scale, flip = divmod(index, len(self.flips))
        ratio = self.ratios[scale]
        long_px, short_px = int(self.short_px * LONG_TO_SHORT * ratio), int(self.short_px * ratio)
        resized = keep_ratio(record.original_hw, long_px, short_px)
        return View(resized_hw=resized, valid_hw=resized, padded_hw=padded_up(resized), flip=self.flips[flip])


def of_revision(recipe: ViewRecipe, revision: int) -> ViewRecipe:
    """A recipe whose views are replayed by a revision of `extract.views.view.REVISIONS`.

    Raises ValueError for an unknown one, and for views that have no other: those of whole images and clips.
    """
    own = recipe.identity().get("replay", {}).get("revision")
    if revision == own:
        return recipe
    if revision not in REVISIONS or not hasattr(recipe, "revision"):
        known = ", ".join(map(str, REVISIONS)) if hasattr(recipe, "revision") else own
        raise ValueError(f"views of {recipe.name} have no revision {revision}; available: {known}")
    changed: ViewRecipe = replace(recipe, revision=revision)  # type: ignore[type-var]
    return changed


def crop_params(
    draws: ManyViewDraws, resized: Ints, crop: Hw, flip: float, colour: Floats | None = None
) -> Floats:
    """Params of views that crop at most `crop` of what was resized, padded to it: float64 (records, P).

    Args:
        resized: (records, 2).
        flip: probability.
        colour: of `colour_params`; None: unchanged.
    """
    valid = np.minimum(resized, np.array(crop))
    places = draws("crop")
    corners = [places.integer(resized[:, axis] - valid[:, axis] + 1) for axis in (0, 1)]
    flips = draws("flip").happens(flip)
    padded = np.broadcast_to(np.array(crop), valid.shape)
    unchanged = np.broadcast_to([0.0, 1.0, 0.0, 1.0, 0.0], (len(valid), 5))
    columns = [resized, *(corner[:, None] for corner in corners), valid, padded, flips[:, None]]
    found = np.concatenate([*columns, unchanged if colour is None else colour], axis=1, dtype=np.float64)
    assert found.shape[1] == len(VIEW_PARAMS)
    return found


def rounded_sides(sides: Floats) -> Ints:
    """Whole pixels, at least one, as recipes round: down from a half more."""
    return np.maximum(1, (sides + 0.5).astype(np.int64))


def draw_corner(draws: Draws, whole: Hw, part: Hw) -> Hw:
    """Where in `whole` a part of that size begins, any place being as likely."""
    return draws.integer(whole[0] - part[0] + 1), draws.integer(whole[1] - part[1] + 1)


def views_of(recipe: ViewRecipe, record: Record, count: int) -> int:
    """Views of one record, `count` at most: recipes of sliding windows have fewer of smaller images."""
    own = getattr(getattr(recipe, "recipe", recipe), "views_of", None)  # of FittedViews its recipe's
    return count if own is None else min(count, own(record))


def check_short_side(short_px: int, most_px: int) -> None:
    """Raises ValueError for a side that no image is resized to."""
    if not 2 <= short_px <= most_px:
        raise ValueError(f"a short side of {short_px} px, expected 2 to {most_px}")


def refuse_crop(name: str, crop_size: CropSize | None) -> None:
    """Raises ValueError where a crop is asked of test views, which show whole images."""
    if crop_size is not None:
        raise ValueError(
            f"test views ({name}) are whole images: they have no crop_size, found {crop_size}; "
            "leave --crop-size out"
        )
