"""Images of test records by key, from the data set where it is at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.accuracy.record_picks import ImageOf

logger = logging.getLogger(__name__)
_GREY = 128


def image_source(dataset: Mapping[str, Any], data: str | None, split: str) -> ImageOf:
    """Args:
    dataset: of an identity.
    data: folder of the data set; None: its default.
    split: of the records.
    """
    # Late: measuring on a store needs no data set and no decoder, pictures of single records do.
    from PIL import Image

    # Late: of the data sets the same holds.
    from extract.datasets import open_dataset
    from extract.sources.byte_sources import decode_image

    place: dict[str, int] = {}
    opened: Any = None
    try:
        opened = open_dataset(dataset, Path(data) if data else None, split)
        if not (opened.records and opened.records[0].frames):
            place = {record.key: index for index, record in enumerate(opened.records)}
    except (ValueError, OSError, ImportError) as error:
        logger.info("records are drawn without their images: %s", str(error).splitlines()[0][:200])

    def image_of(key: str, hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
        if key in place:
            try:
                picture = Image.fromarray(decode_image(opened.read_source(place[key])))
                return np.asarray(picture.resize((hw[1], hw[0]), Image.Resampling.BOX))
            except (ValueError, OSError) as error:
                logger.info("%s is drawn without its image: %s", key, str(error)[:200])
        return np.full((*hw, 3), _GREY, np.uint8)

    return image_of
