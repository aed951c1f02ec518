"""Image files for `predict`: decoded only where memory holds the image and its pictures."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from extract.sources.byte_sources import FileSource, SourceError, decode_image, image_size
from pipelines.live.image_input import Rgb
from pipelines.machine.free_memory import available_bytes
from pipelines.units import gigabytes
from stores.format.row_table import OVER_LIMIT, UNDECODABLE

LIMIT_PX = 178_000_000
"""Larger images are refused: twice Pillow's MAX_IMAGE_PIXELS, from where it takes them for bombs."""
BYTES_PER_PX = 11
"""At most, while an image is decoded (Pillow's 4, up to 6 of a progressive JPEG) and afterwards (the image 3,
its labels or one mask 1, the picture 4, and 3 while the picture is made)."""
MOST_BYTES = 8 * LIMIT_PX + (64 << 20)
"""Of a file: that many pixels of four channels of 16 bits, uncompressed, and 64 MiB of metadata."""
FIXED_BYTES = 512 << 20  # 512 MiB: bands of scores, features of the view


def read_image(path: Path) -> Rgb:
    """The image in a file, uint8 RGB (H, W, 3), EXIF orientation applied.

    Raises SourceError where it is no image, has more than LIMIT_PX pixels, or predicting it would take more
    memory than is available; OSError where the file cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        raise SourceError(UNDECODABLE, "not a regular file")
    if status.st_size > MOST_BYTES:
        raise SourceError(OVER_LIMIT, f"a file of {gigabytes(status.st_size)}: larger than any image")
    source = FileSource(path, status.st_size)
    height, width = image_size(source, LIMIT_PX)
    needed = status.st_size + BYTES_PER_PX * height * width + FIXED_BYTES
    free = available_bytes()
    if needed > free:
        raise SourceError(
            OVER_LIMIT,
            f"{width}x{height} pixels take up to {gigabytes(needed)} of memory, {gigabytes(free)} are "
            "available; scale it down",
        )
    return decode_image(source.read(), LIMIT_PX)
