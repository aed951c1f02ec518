"""Thumbnails of skipped records, where their source files are at hand and can be shown at all."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from extract.datasets import open_dataset
from pipelines.pages.embedded_pictures import Picture
from stores.format.printable import escaped

logger = logging.getLogger(__name__)
MAX_SHOWN = 24
_SIDE_PX = 160
_MAX_PIXELS = 64 << 20


def skipped_pictures(
    dataset: Mapping[str, Any], keys: Sequence[str], data: str | None = None
) -> list[Picture]:
    """Thumbnails of the first records of `keys` whose file is an image that opens, with their keys.

    Args:
        dataset: of the store's identity.
        data: folder of the data set; None: its default.
    """
    if not keys:
        return []
    try:
        opened = open_dataset(dataset, Path(data) if data else None, str(dataset["split"]))
    except (ValueError, OSError, ImportError) as error:
        logger.info("skipped records are shown without pictures: %s", str(error).splitlines()[0][:200])
        return []
    place = {record.key: index for index, record in enumerate(opened.records)}
    found: list[Picture] = []
    for key in dict.fromkeys(keys):
        if len(found) >= MAX_SHOWN:
            break
        if key in place and (uri := _thumbnail(opened, place[key])):
            found.append(Picture(escaped(key), uri))
    return found


def _thumbnail(opened: Any, index: int) -> str | None:
    try:
        with Image.open(BytesIO(opened.read_source(index))) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                return None
            picture.draft("RGB", (_SIDE_PX, _SIDE_PX))
            small = picture.convert("RGB")
    except Exception:  # it was skipped for a reason; decoders raise what they like
        return None
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    file = BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
