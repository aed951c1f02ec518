"""Views of an image from the bytes of its file: decoded once, then rendered one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from extract.sources.byte_sources import SourceError, decode_image
from extract.views.view import Hw, View
from stores.format.row_table import WRONG_SIZE


def render_image(data: bytes, original_hw: Hw, views: Sequence[View]) -> list[npt.NDArray[np.uint8]]:
    """uint8 RGB (padded H, W, 3) of each view, zero where it is padding.

    Args:
        data: the image file.
        original_hw: what its header promised when it was listed.

    Raises:
        SourceError: the bytes are no image, or one of another size.
    """
    rgb = decode_image(data)
    if rgb.shape[:2] != original_hw:
        height, width = original_hw
        found = f"{rgb.shape[1]}x{rgb.shape[0]} pixels"
        raise SourceError(WRONG_SIZE, f"decodes to {found}, its header promised {width}x{height}")
    return [view.apply_image(rgb) for view in views]
