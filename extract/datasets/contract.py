"""Media: how the bytes of a source become the pixels of its views (extract/decoding holds two)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extract.sources.record import Record
from extract.views.view import View

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
