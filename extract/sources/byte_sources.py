"""Bytes of sources, and images decoded from them.

Errors are of two classes, which are never mixed. A *data* error is a `SourceError`: the same in every run, so
the record is skipped with its reason. An *environment* error (EIO, ESTALE, no memory) says nothing about the
record: it is retried, then raised as it is.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from stores.format.row_table import OVER_LIMIT, UNDECODABLE

logger = logging.getLogger(__name__)

T = TypeVar("T")

DECODER = "pillow; EXIF orientation applied; alpha dropped; 16 bits a channel to 8 by their high byte"
"""Names the decoder in a store's identity. Versions are provenance: they stand in the receipts."""
LIMIT_PX = 64_000_000
"""Larger images are skipped: 192 MB decoded, three times the largest photographs of the data sets here."""
DEFAULT_SOURCE_BYTES = 1 << 30  # 1 GiB
"""Far more than any photograph, label map or clip; a source is held in memory whole."""
BAD_TARGET = 5
"""Outcome code (see stores.format.row_table): the record's annotation cannot be used."""
NOT_IN_SUBSET = 6
"""Outcome code: the extraction was limited to a subset, and the record is not in it."""

_ORIENTATION = 0x0112
"""The EXIF tag, and TIFF's."""
_QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that swap the sides."""
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_HEADER_BYTES = 64 << 10  # 64 KiB hold the header of nearly every photograph
_TRANSIENT = (
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.EINTR,
    errno.ETIMEDOUT,
    errno.EBUSY,
    errno.EREMOTEIO,
)
_PAUSES_S = (0.05, 0.5, 2.0)
_COPIED_PX = 4 << 20  # 4 Mpx: 12 MB


class SourceError(ValueError):
    """A record cannot be used, whoever tries: `code` is its outcome in the store, `reason` one line for
    people without paths, times or addresses, since it becomes part of the store."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class DecoderLost(SourceError):
    """The source ended its decoder: it crashed it or used up the memory. Other work beside it may have had a
    part in that, so it is tried again before the record is skipped."""


class TookTooLong(DecoderLost):
    """The time limit passed, twice; decoding parts of the source would take as long again."""


class ByteSource(Protocol):
    """Bytes at a place: a file, or a member of a tar."""

    @property
    def size(self) -> int:
        """Length in bytes when the place was listed."""

    def read(self, limit: int | None = None) -> bytes:
        """All current bytes, or the first `limit` of them. Raises OSError."""


class SourceLimit:
    """How long a source may be, of this process. Longer ones are skipped without being read."""

    def __init__(self) -> None:
        self.bytes = DEFAULT_SOURCE_BYTES

    def check(self, size: int) -> None:
        """Raises SourceError for a source of more bytes."""
        if size > self.bytes:
            raise SourceError(OVER_LIMIT, f"{size} bytes, at most {self.bytes} are read")


MAX_SOURCE = SourceLimit()
"""Set by the verbs (--max-source-mb)."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file. Of a great many the path is text: a Path takes 500 bytes."""

    path: Path | str
    size: int

    def read(self, limit: int | None = None) -> bytes:
        """See ByteSource. Raises SourceError for no regular file, and for one beyond MAX_SOURCE."""
        # Without waiting: a pipe that nobody writes to would wait for ever.
        with open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(UNDECODABLE, "not a regular file")
            if limit is not None:
                return file.read(limit)
            MAX_SOURCE.check(status.st_size)
            return file.read(max(self.size, status.st_size) + 1)


def retried(read: Callable[[], T], what: str) -> T:
    """`read()`, retried three times after transient environment errors. Raises the last OSError."""
    for pause_s in _PAUSES_S:
        try:
            return read()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
            logger.warning("%s: %s; retrying in %.2f s", what, error.strerror or error, pause_s)
            time.sleep(pause_s)
    return read()


def image_size(source: ByteSource, limit_px: int = LIMIT_PX) -> tuple[int, int]:
    """Height and width after EXIF orientation, from the header.

    Raises:
        SourceError: not an image, or one of more than `limit_px` pixels.
        OSError: the bytes could not be read.
    """
    head = source.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES:
        return _header_size(head, limit_px)
    try:
        return _header_size(head, limit_px)
    except SourceError as error:
        if error.code == OVER_LIMIT:
            raise
        MAX_SOURCE.check(source.size)
        return _header_size(source.read(), limit_px)  # the header is longer, as with a large colour profile


def _header_size(data: bytes, limit_px: int) -> tuple[int, int]:
    with _opened(data, limit_px) as image:
        width, height = _decoding(lambda: _stored_size(image))
        is_turned = _decoding(lambda: image.getexif().get(_ORIENTATION, 1)) in _QUARTER_TURNS
        return (width, height) if is_turned else (height, width)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before orientation. Pillow gives those of a TIFF after it, unlike any other file's."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[_TIFF_WIDTH]), int(image.tag_v2[_TIFF_HEIGHT])
    return image.width, image.height


def decode_image(data: bytes, limit_px: int = LIMIT_PX) -> npt.NDArray[np.uint8]:
    """The image in `data` as uint8 RGB (H, W, 3), EXIF orientation applied.

    Grayscale, palette, CMYK and 16-bit images become RGB, alpha is dropped.

    Raises:
        SourceError: not an image of a known kind, damaged, or of more than `limit_px` pixels.
    """
    return _decoding(lambda: _pixels(decode_picture(data, limit_px)))


def decode_picture(data: bytes, limit_px: int = LIMIT_PX) -> Image.Image:
    """As `decode_image`, as an image of Pillow's in mode RGB, without the copy to an array."""
    with _opened(data, limit_px) as image:
        return _decoding(lambda: _rgb(_upright(image)))


def decode_indices(data: bytes, limit_px: int = LIMIT_PX) -> npt.NDArray[np.uint8]:
    """The values of a grayscale or palette PNG as they stand in the file: uint8 (H, W).

    Raises:
        SourceError: not such a PNG, damaged, too large, or with values of other than 8 bits.
    """
    with _opened(data, limit_px, formats=("PNG",)) as image:
        bits, colour = data[24], data[25]  # of the IHDR chunk, which the decoder has found in its place
        if colour == 3 or (colour == 0 and bits == 8):  # Pillow stretches grays of fewer bits to 0..255
            return _decoding(lambda: np.array(image, dtype=np.uint8))
    raise SourceError(
        UNDECODABLE, f"a label map of PNG colour type {colour} with {bits} bits, expected 8-bit gray"
    )


def decode_label_values(data: bytes, limit_px: int = LIMIT_PX) -> npt.NDArray[np.uint16]:
    """The values of a gray PNG of 1 to 16 bits, or of one with a palette, as they stand in the file: uint16
    (H, W).

    Raises:
        SourceError: not such a PNG, damaged, or too large.
    """
    with _opened(data, limit_px, formats=("PNG",)) as image:
        bits, colour = data[24], data[25]  # of the IHDR chunk, which the decoder has found in its place
        if colour not in (0, 3):
            raise SourceError(
                UNDECODABLE,
                f"a PNG in colours (type {colour}), expected one value a pixel: gray, or with a palette",
            )
        values = _decoding(lambda: np.array(image).astype(np.uint16))
        stretched = colour == 0 and bits in (2, 4)  # by Pillow, to 0..255
        return values // np.uint16(255 // ((1 << bits) - 1)) if stretched else values


def _opened(data: bytes, limit_px: int, formats: tuple[str, ...] = _FORMATS) -> Image.Image:
    if not data:
        raise SourceError(UNDECODABLE, "an empty file")
    with warnings.catch_warnings():
        # Pillow's warning about large images: `limit_px` decides.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = _decoding(lambda: Image.open(io.BytesIO(data), formats=formats))
    if image.width * image.height > limit_px:
        raise SourceError(OVER_LIMIT, f"{image.width}x{image.height} pixels, at most {limit_px} are decoded")
    return image


def _decoding(step: Callable[[], T]) -> T:
    """Runs a step of the decoder over bytes in memory: every error but a lack of memory is the data's."""
    try:
        return step()
    except (SourceError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise SourceError(OVER_LIMIT, "a decompression bomb: far more pixels than any photograph") from None
    except UnidentifiedImageError:
        raise SourceError(UNDECODABLE, f"not an image of a known kind ({', '.join(_FORMATS)})") from None
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        text = re.sub(r"<[^>]*>", "the file", str(error))[:160]
        raise SourceError(UNDECODABLE, f"{type(error).__name__}: {text}") from None


def _upright(image: Image.Image) -> Image.Image:
    """The image after EXIF orientation; itself where there is none: a copy takes 4 bytes a pixel."""
    image.load()  # some formats know their mode only then
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        gray: npt.NDArray[Any] = np.asarray(image)
        if gray.min() < 0 or gray.max() > 0xFFFF:
            raise SourceError(UNDECODABLE, "gray values beyond 16 bits")
        return Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise SourceError(UNDECODABLE, "gray values in floating point")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # without this step Pillow warns that a palette's alpha is lost
    return image if image.mode == "RGB" else image.convert("RGB")


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Of an RGB image, some rows at a time: whole, Pillow holds the pixels twice more."""
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _COPIED_PX // image.width)
    for first in range(0, image.height, rows):
        stop = min(first + rows, image.height)
        rgb[first:stop] = np.asarray(image.crop((0, first, image.width, stop)))
    return rgb
