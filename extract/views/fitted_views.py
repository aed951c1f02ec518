"""Views for one backbone: padded to multiples of its patches, resized as its training images were."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from extract.sources.record import Record
from extract.views.crop_size import crop_hw, plain_size, size_text
from extract.views.recipes import ViewRecipe
from extract.views.view import INTERPOLATIONS, MULTIPLE_PX, Hw, interpolation_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FittedViews:
    """The views of a recipe, whole images padded to multiples of `multiple_px`."""

    recipe: ViewRecipe
    multiple_px: int
    interpolation: str
    """Of the resize, a name of `extract.views.view.RESAMPLING`."""

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

    @property
    def drawn(self) -> Any:
        """The recipe's, where it draws many crops at a time: their numbers are the same here."""
        return None if self.crop_px is None else getattr(self.recipe, "drawn", None)

    def identity(self) -> dict[str, Any]:
        """The recipe's, with what is not as it says: the multiple of the padding, the interpolation."""
        found = self.recipe.identity()
        if self.multiple_px != MULTIPLE_PX:
            padding = found["replay"]["padding"].replace(f"{MULTIPLE_PX} px", f"{self.multiple_px} px")
            found = {
                **found,
                "multiple_px": self.multiple_px,
                "replay": {**found["replay"], "padding": padding},
            }
        usual = interpolation_of(found)
        if self.interpolation != usual:
            replay = {
                name: value.replace(usual, self.interpolation) if isinstance(value, str) else value
                for name, value in found["replay"].items()
            }
            found = {**found, "interpolation": self.interpolation, "replay": replay}
        return found

    def view(self, dataset: str, record: Record, index: int, seed: int, truth: Any = None) -> Any:
        view: Any = self.recipe.view(dataset, record, index, seed, truth)
        view = replace(view, interpolation=self.interpolation)
        if self.crop_px is not None or self.multiple_px == MULTIPLE_PX:
            return view
        return replace(view, padded_hw=_up(view.valid_hw, self.multiple_px))


def _up(sides: Hw, multiple_px: int) -> Hw:
    height, width = (-(-side // multiple_px) * multiple_px for side in sides)
    return height, width


def _down(sides: Hw, multiple_px: int) -> Hw:
    height, width = (max(1, side // multiple_px) * multiple_px for side in sides)
    return height, width


def fitted_to(
    recipe: ViewRecipe,
    multiple_px: int,
    model: str,
    *,
    crop_given: bool = False,
    interpolation: str | None = None,
) -> ViewRecipe:
    """The recipe for a backbone whose views have sides of multiples of `multiple_px`.

    A recipe's own crop becomes the next larger multiple, and says so.

    Args:
        model: the backbone, for messages.
        crop_given: the user asked for this crop.
        interpolation: of the resize, bilinear or bicubic; None: the recipe's own.

    Raises ValueError for a crop asked for whose sides are no such multiples, and an unknown interpolation.
    """
    usual = interpolation_of(recipe.identity())
    chosen = usual if interpolation is None else interpolation
    if chosen not in INTERPOLATIONS:
        raise ValueError(f"interpolation {chosen!r}: expected {' or '.join(INTERPOLATIONS)}")
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
    if multiple_px == MULTIPLE_PX and chosen == usual:
        return recipe
    return FittedViews(recipe, multiple_px, chosen)
