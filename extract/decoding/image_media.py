"""The `Media` of image data sets; see extract.datasets.contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.decoding.decoder_pool import DecoderPool, decoder_pool
from extract.sources.byte_sources import DECODER, LIMIT_PX
from extract.sources.record import Record
from extract.views.crop_view import CROP_PARAMS, CropView
from extract.views.persons.affine_view import AFFINE_PARAMS, AffineView
from extract.views.view import VIEW_PARAMS, View


class Images:
    """Sources that are one image each; a `Media`. extract.decoding.decoder_pool decodes them."""

    view_params: tuple[str, ...] = VIEW_PARAMS

    def __init__(self, pool: DecoderPool | None = None) -> None:
        """Args: pool: of decoders; None: that of this process."""
        self._pool = pool

    @property
    def decoder(self) -> Mapping[str, Any]:
        return {"name": DECODER, "limit_px": LIMIT_PX}

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> View:
        return View.from_params(params)

    def render(self, data: bytes, record: Record, views: Sequence[View]) -> list[npt.NDArray[np.uint8]]:
        return (self._pool or decoder_pool()).render_image(data, record.original_hw, views)


class CroppedImages(Images):
    """Sources that are one photograph each, whose views are boxes of the source; a `Media`."""

    view_params = CROP_PARAMS

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> CropView:
        return CropView.from_params(params)


class Persons(Images):
    """Sources that are one image each, whose views are crops of persons; a `Media`."""

    view_params = AFFINE_PARAMS

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> AffineView:
        return AffineView.from_params(params)
