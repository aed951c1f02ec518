"""Views for a backbone whose patches are no 32 px: padded to multiples of these, 518 px of patches of 14."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from extract.sources.record import Record
from extract.views.crop_size import crop_hw, plain_size, size_text
from extract.views.recipes import ViewRecipe, views_of
from extract.views.view import MULTIPLE_PX, Hw

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PaddedViews:
    """The views of a recipe, whole images padded to multiples of `multiple_px`."""

    recipe: ViewRecipe
    multiple_px: int

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def fixed_count(self) -> int | None:
        return self.recipe.fixed_count

    @property
    def looks_at_truth(self) -> bool:
        return self.recipe.looks_at_truth

    @property
    def frames(self) -> int | None:
        return self.recipe.frames

    @property
    def crop_px(self) -> Any:
        """The recipe's own, where it has one."""
        return getattr(self.recipe, "crop_px", None)

    def views_of(self, record: Record) -> int:
        """Of one record, as the recipe has them."""
        return views_of(self.recipe, record, self.fixed_count or 1)

    def identity(self) -> dict[str, Any]:
        """The recipe's, with the multiple that its views are padded to."""
        found = self.recipe.identity()
        padding = found["replay"]["padding"].replace(f"{MULTIPLE_PX} px", f"{self.multiple_px} px")
        return {**found, "multiple_px": self.multiple_px, "replay": {**found["replay"], "padding": padding}}

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> Any:
        view: Any = self.recipe.view(dataset, record, index, seed, truth)
        if self.crop_px is not None:
            return view
        return replace(view, padded_hw=_up(view.valid_hw, self.multiple_px))


def _up(sides: Hw, multiple_px: int) -> Hw:
    height, width = (-(-side // multiple_px) * multiple_px for side in sides)
    return height, width


def _down(sides: Hw, multiple_px: int) -> Hw:
    height, width = (max(1, side // multiple_px) * multiple_px for side in sides)
    return height, width


def padded_for(recipe: ViewRecipe, multiple_px: int, model: str, *, crop_given: bool = False) -> ViewRecipe:
    """The recipe for a backbone whose views have sides of multiples of `multiple_px`.

    A recipe's own crop becomes the next larger multiple, and says so.

    Args:
        model: the backbone, for messages.
        crop_given: the user asked for this crop.

    Raises ValueError for a crop asked for whose sides are no such multiples.
    """
    crop: Any = getattr(recipe, "crop_px", None)
    if crop is not None:
        sides = crop_hw(crop)
        below, above = _down(sides, multiple_px), _up(sides, multiple_px)
        if crop_given and sides != above:
            raise ValueError(
                f"crop_size {size_text(crop)}: expected multiples of {multiple_px} px for {model}, such as "
                f"{size_text(below)} or {size_text(above)}"
            )
        if sides != above:
            logger.info("%s: views of %s px instead of %s", model, size_text(above), size_text(crop))
            recipe = replace(recipe, crop_px=plain_size(above))  # type: ignore[type-var]  # every recipe is a dataclass
    return recipe if multiple_px == MULTIPLE_PX else PaddedViews(recipe, multiple_px)
