"""Images of test records by key, from the data set where it is at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.accuracy.named_pictures import ViewOf
from pipelines.accuracy.record_picks import ImageOf

if TYPE_CHECKING:
    from extract.views.recipes import ViewRecipe

logger = logging.getLogger(__name__)
_GREY = 128
_UNKNOWN_HW = (128, 128)


def image_source(dataset: Mapping[str, Any], data: str | None, split: str) -> ImageOf:
    """Args:
    dataset: of an identity.
    data: folder of the data set; None: its default.
    split: of the records.
    """
    # Late: measuring on a store needs no data set and no decoder, pictures of single records do.
    from PIL import Image

    # Late: the same.
    from extract.sources.byte_sources import decode_image

    opened, place = _opened(dataset, data, split)

    def image_of(key: str, hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
        if key in place and not opened.records[place[key]].frames:
            try:
                picture = Image.fromarray(decode_image(opened.read_source(place[key])))
                return np.asarray(picture.resize((hw[1], hw[0]), Image.Resampling.BOX))
            except (ValueError, OSError) as error:
                logger.info("%s is drawn without its image: %s", key, str(error)[:200])
        return np.full((*hw, 3), _GREY, np.uint8)

    return image_of


def view_source(dataset: Mapping[str, Any], data: str | None, split: str, recipe: ViewRecipe) -> ViewOf:
    """Middle view of each record, of a clip four of its frames; arguments as of `image_source`."""
    opened, place = _opened(dataset, data, split)

    def view_of(key: str) -> npt.NDArray[np.uint8]:
        if key in place:
            record = opened.records[place[key]]
            view = recipe.view(opened.name, record, (recipe.fixed_count or 1) // 2, 0)
            try:
                (pixels,) = opened.media.render(opened.read_source(place[key]), record, [view])
                height, width = view.valid_hw
                return _four_frames(pixels[..., :height, :width, :])
            except (ValueError, OSError, ImportError) as error:
                logger.info("%s is drawn without its image: %s", key, str(error)[:200])
        return np.full((*_UNKNOWN_HW, 3), _GREY, np.uint8)

    return view_of


def _four_frames(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image as it is; of a clip (T, H, W, 3) four frames in two rows, with the first and the last."""
    if pixels.ndim == 3:
        return pixels
    first, second, third, last = pixels[np.linspace(0, len(pixels) - 1, 4).round().astype(int)]
    return np.concatenate([np.concatenate([first, second], 1), np.concatenate([third, last], 1)], 0)


def _opened(dataset: Mapping[str, Any], data: str | None, split: str) -> tuple[Any, dict[str, int]]:
    """The data set and the places of its records; none where it is not at hand."""
    # Late: see image_source.
    from extract.datasets import open_dataset

    try:
        opened = open_dataset(dataset, Path(data) if data else None, split)
    except (ValueError, OSError, ImportError) as error:
        logger.info("records are drawn without their images: %s", str(error).splitlines()[0][:200])
        return None, {}
    return opened, {record.key: index for index, record in enumerate(opened.records)}
