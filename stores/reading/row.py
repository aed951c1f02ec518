"""One row of a store, as `store[i]` returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.reading.html_table import html_table


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """A record under one view. Its arrays are its own: writeable, shared with no other row."""

    key: str
    """Of the record."""
    view: int
    """From 0."""
    features: dict[str, npt.NDArray[np.float32]]
    """Level -> float32 (C, [T,] y, x), C-contiguous: the layout that heads read, without the batch."""
    targets: dict[str, npt.NDArray[Any]]
    """By name, in their own dtypes and shapes, such as labels: uint8 (y, x)."""

    def __repr__(self) -> str:
        features, targets = (
            ", ".join(f"{name}: {array.dtype} {array.shape}" for name, array in arrays.items())
            for arrays in (self.features, self.targets)
        )
        return f"Row(key={self.key!r}, view={self.view}, features={{{features}}}, targets={{{targets}}})"

    def _repr_html_(self) -> str:
        arrays = {**self.features, **self.targets}
        shapes = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
        return html_table(f"Row of {self.key}, view {self.view}", shapes)
