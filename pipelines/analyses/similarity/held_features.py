"""Features of a sample of rows held in memory batch by batch, and their Gram matrices.

Letters in array names: n rows, D values of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.analyses.similarity.cka import LEAST_ROWS, Matrix, gram

_CHUNK_VALUES = 1 << 23
"""64 MiB of float64 at a time."""
MINIBATCH = 64


@dataclass(slots=True)
class GramCollector:
    """Gram matrices of named features over batches of rows.

    Args:
        batch_rows: rows of a batch; all of them where they fit into memory. A shorter last batch is dropped.
    """

    batch_rows: int
    grams: dict[str, list[Matrix]] = field(default_factory=dict)
    _held: dict[str, list[npt.NDArray[np.float32]]] = field(default_factory=dict)

    def add(self, name: str, x_D: npt.NDArray[np.float32]) -> None:
        """The features of the next row. Raises ValueError where they have another length than the first."""
        held = self._held.setdefault(name, [])
        row = np.ascontiguousarray(x_D, np.float32).reshape(-1)
        if held and len(row) != len(held[0]):
            raise ValueError(
                f"{name}: rows of {len(held[0])} and {len(row)} values; maps of several sizes need --pool gap"
            )
        held.append(row)
        if len(held) == self.batch_rows:
            self.grams.setdefault(name, []).append(gram(_chunks(held)))
            held.clear()

    def finish(self) -> None:
        """Takes the rows of a batch that was never filled, where it is the only one."""
        for name, held in self._held.items():
            if not self.grams.get(name) and len(held) >= LEAST_ROWS:
                self.grams[name] = [gram(_chunks(held))]

    @property
    def rows(self) -> int:
        """Rows in the Gram matrices of each feature."""
        return min((sum(map(len, grams)) for grams in self.grams.values()), default=0)


def _chunks(held: list[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
    width = max(1, _CHUNK_VALUES // len(held))
    for start in range(0, len(held[0]), width):
        yield np.stack([row[start : start + width] for row in held])


def batch_rows(rows: int, values_a_row: int, memory_bytes: int, asked: int | None) -> int:
    """Rows of a batch: as asked, else all, or MINIBATCH where all do not fit into memory.

    Args:
        values_a_row: of all features together, held as float32.
    """
    if asked is not None:
        return max(LEAST_ROWS, min(asked, rows))
    return rows if 4 * rows * values_a_row <= memory_bytes else min(rows, MINIBATCH)


def pooled_map(x_Cyx: npt.NDArray[np.float32], pool: str) -> npt.NDArray[np.float32]:
    """A map as the features of a row: flattened, or its mean over cells (`gap`)."""
    if pool == "none" or x_Cyx.ndim < 2:
        return x_Cyx.reshape(-1)
    mean: npt.NDArray[np.float32] = x_Cyx.reshape(len(x_Cyx), -1).mean(1, dtype=np.float64)
    return mean


Grams = Mapping[str, list[Matrix]]
