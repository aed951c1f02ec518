"""How the bytes of a source become the pixels of its views: images here, videos in extract/video.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extract.records import Record
from extract.sources import DECODER, LIMIT_PX, SourceError, decode_image
from extract.view import VIEW_PARAMS, View
from stores.records import WRONG_SIZE

Pixels = npt.NDArray[np.uint8]


class Media(Protocol):
    """One kind of source, images or videos, and the views of it."""

    @property
    def view_params(self) -> tuple[str, ...]:
        """Names of the numbers that make a view, the columns of rows/params."""

    @property
    def decoder(self) -> Mapping[str, Any]:
        """What decodes and within which limits, for identities."""

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> View:
        """The view that `to_params` made them of. Raises ValueError where they are none."""

    def render(self, data: bytes, record: Record, views: Sequence[View]) -> list[Pixels]:
        """Views of a source, which is decoded once: uint8 RGB ([T,] padded H, W, 3), zero in the padding.

        Raises SourceError where the bytes are not what the record promised.
        """


class Images:
    """Sources that are one image each; a `Media`."""

    view_params = VIEW_PARAMS

    @property
    def decoder(self) -> Mapping[str, Any]:
        return {"name": DECODER, "limit_px": LIMIT_PX}

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> View:
        return View.from_params(params)

    def render(self, data: bytes, record: Record, views: Sequence[View]) -> list[Pixels]:
        rgb = decode_image(data)
        if rgb.shape[:2] != record.original_hw:
            height, width = record.original_hw
            found = f"{rgb.shape[1]}x{rgb.shape[0]} pixels"
            raise SourceError(WRONG_SIZE, f"decodes to {found}, its header promised {width}x{height}")
        return [view.apply_image(rgb) for view in views]
