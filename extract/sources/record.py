"""One image or video of a data set, as it was listed."""

from __future__ import annotations

from dataclasses import dataclass

DECODER_NAMES = ("decord", "pyav")
"""Video decoders in the order in which they are tried; a view holds the number of the one that reads it."""
READ_THREADS = 8
"""Small reads at once while listing and planning: on a network file system each waits for the server."""


class DatasetLayoutError(ValueError):
    """A folder does not hold the data set; says what was looked for and where to get it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image or video and its annotation, as listed."""

    key: str
    """Names the content, wherever it lies: the file's stem."""
    source_bytes: int
    """Length of the image or video file."""
    original_hw: tuple[int, int]
    """Height and width in pixels after EXIF orientation, from the header; for an image whose header cannot
    be read those of its annotation, else (1, 1). Such a record is skipped when it is decoded."""
    frames: int | None = None
    """Of a video, from its container; None for images."""
    fps: float | None = None
    """Mean frames a second of a video; None for images."""
    decoder: str | None = None
    """Which decoder reads the frames of a video, one of DECODER_NAMES; None for images."""
    source: str | None = None
    """Names the file that several records share, which is decoded once for all; None: its own."""
