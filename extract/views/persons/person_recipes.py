"""View recipes of persons: random crops around their boxes to train on, the box and its mirror to test on.

`pose` is mmpose's top-down training pipeline (open-mmlab/mmpose@759b39c datasets/transforms/
common_transforms.py: RandomFlip, RandomHalfBody, RandomBBoxTransform) with the ranges of "Revealing the Dark
Secrets of Masked Image Modeling" (appendix F): scale 0.5 to 1.5, rotation up to 40 degrees. The paper names
no distribution: as mmpose, a normal one cut at one deviation, rotation with probability 0.6. `pose-full` adds
the colours and holes that the paper prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, ClassVar

from extract.sources.record import Record
from extract.views.crop_size import CropSize, check_crop, crop_hw, plain_size, size_identity, size_text
from extract.views.persons.affine_view import AffineView, affine_rule
from extract.views.persons.crop_changes import CropChanges, changes_rule, draw_changes
from extract.views.persons.person_box import (
    HALF_PADDING,
    PADDING,
    PersonRecord,
    Region,
    half_region,
    region_of,
    udp_matrix,
)
from extract.views.recipes import MAX_SIDE_PX, RecipeMaker, SeededViews, ViewRecipe
from extract.views.seeded_draws import Draws, ViewDraws

CROP_PX = 256
_NORMAL = NormalDist()
_WITHIN = (_NORMAL.cdf(-1.0), _NORMAL.cdf(1.0))


def truncated_normal(draws: Draws) -> float:
    """A draw of the standard normal distribution between -1 and 1.

    By the inverse of its distribution function, which between these is a quotient of polynomials: no last bit
    depends on a C library.
    """
    return _NORMAL.inv_cdf(draws.uniform(*_WITHIN))


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomPersonCrops(SeededViews):
    """Training views of a person."""

    name: str
    crop_px: CropSize = CROP_PX
    """Side of a square crop, or height and width; multiples of 32."""
    scale: float = 0.5
    """Scales are 1 + this times a truncated normal draw."""
    rotation_deg: float = 40.0
    """Rotations are this times another."""
    rotated: float = 0.6
    shift: float = 0.16
    """Of the box's sides, times another for each axis."""
    shifted: float = 0.3
    half_body: float = 0.3
    upper_half: float = 0.7
    flip: float = 0.5
    """Probabilities: rotated, shifted, half_body, upper_half where both halves would do, flip."""
    changed: bool = False
    """Whether colours change and some crops have holes."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "kind": "crop",
            **size_identity(self.crop_px),
            "box_padding": PADDING,
            "scale": self.scale,
            "rotation_deg": self.rotation_deg,
            "rotated": self.rotated,
            "shift": self.shift,
            "shifted": self.shifted,
            "half_body": {
                "probability": self.half_body,
                "upper": self.upper_half,
                "box_padding": HALF_PADDING,
            },
            "flip": self.flip,
            **({"changes": changes_rule()} if self.changed else {}),
            "replay": affine_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> AffineView:
        draws = ViewDraws(dataset, record.key, index, seed)
        person = as_person(record)
        half = self._half(person, draws("half body"))
        region = self._moved(half or region_of(person.source_box), draws("shift"))
        region = region.scaled(1 + self.scale * truncated_normal(draws("scale")))
        turn = draws("rotation")
        rotation = self.rotation_deg * truncated_normal(turn) if turn.happens(self.rotated) else 0.0
        return view_of(
            person,
            region,
            self.crop_px,
            rotation_deg=rotation,
            flip=draws("flip").happens(self.flip),
            half_body=half is not None,
            changes=draw_changes(draws("changes")) if self.changed else CropChanges(),
        )

    def _half(self, person: PersonRecord, draws: Draws) -> Region | None:
        if person.keypoints is None or not person.upper_body or not draws.happens(self.half_body):
            return None
        return half_region(person.keypoints, person.upper_body, draws.happens(self.upper_half))

    def _moved(self, region: Region, draws: Draws) -> Region:
        if not draws.happens(self.shifted):
            return region
        return region.moved(*(self.shift * truncated_normal(draws) for _ in range(2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonCrops:
    """Test views of a person: its padded box, the same for every seed; view 1 is its mirror image."""

    frames: ClassVar[int | None] = None
    looks_at_truth: ClassVar[bool] = False
    name: str
    fixed_count: int | None = 2
    crop_px: CropSize = CROP_PX
    """Side of a square crop, or height and width; multiples of 32."""

    def __post_init__(self) -> None:
        check_crop(self.crop_px, MAX_SIDE_PX)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": self.name,
            "kind": "crop",
            **size_identity(self.crop_px),
            "box_padding": PADDING,
            "replay": affine_rule(),
        }

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> AffineView:
        """Raises ValueError for a view that it does not have."""
        if self.fixed_count is None or index >= self.fixed_count:
            raise ValueError(f"view recipe {self.name} has {self.fixed_count} views, not {index + 1}")
        person = as_person(record)
        return view_of(person, region_of(person.source_box), self.crop_px, flip=index == 1)


def as_person(record: Record) -> PersonRecord:
    """The record; of one without a box a person who fills the image."""
    if isinstance(record, PersonRecord):
        return record
    return PersonRecord(record.key, record.source_bytes, record.original_hw)


def view_of(
    person: PersonRecord,
    region: Region,
    crop_px: CropSize,
    *,
    rotation_deg: float = 0.0,
    flip: bool = False,
    half_body: bool = False,
    changes: CropChanges | None = None,
) -> AffineView:
    """The view of a region, enlarged to the aspect of the crop."""
    crop = crop_hw(crop_px)
    return AffineView(
        resized_hw=crop,
        valid_hw=crop,
        padded_hw=crop,
        flip=flip,
        matrix=udp_matrix(region.of_aspect(crop), rotation_deg, crop),
        box=person.source_box,
        half_body=half_body,
        changes=changes or CropChanges(),
    )


def _training(
    name: str, changed: bool, crop_size: CropSize | None, short_side: int | None
) -> RandomPersonCrops:
    if short_side is not None:
        raise ValueError(
            f"view recipe {name} crops persons: --crop-size is its one size, no short side ({short_side})"
        )
    return RandomPersonCrops(name=name, crop_px=CROP_PX if crop_size is None else crop_size, changed=changed)


def _test(name: str, count: int, crop_size: CropSize | None, short_side: int | None) -> ViewRecipe:
    if crop_size is None:
        crop_size = CROP_PX if short_side is None else short_side
    elif short_side not in (None, min(crop_hw(crop_size))):
        raise ValueError(
            f"view recipe {name} crops persons to {size_text(crop_size)} px, its one size: no short side of "
            f"{short_side}"
        )
    return PersonCrops(name=name, fixed_count=count, crop_px=plain_size(crop_size))


VIEW_RECIPES: Mapping[str, RecipeMaker] = {
    "pose": partial(_training, "pose", False),
    "pose-full": partial(_training, "pose-full", True),
    "flip": partial(_test, "flip", 2),
    "single": partial(_test, "single", 1),
}
"""Makers of recipes from (crop size, short side): both are the size of the crop; None for 256 px."""
TRAINING_VIEWS = ("pose", "pose-full")
TEST_VIEWS = ("flip", "single")
POSE_LEVELS = ("p5",)
"""What stores of persons keep by default: the heads read the last map alone."""
