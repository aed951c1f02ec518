"""Annotations as byte ranges of their file, each read and parsed when it is needed."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.coco_json.ids import IdReader
from extract.sources.byte_sources import retried
from extract.sources.record import DatasetLayoutError

Entry = Mapping[str, Any]
Offsets = npt.NDArray[np.int64]


def parsed(text: bytes) -> Any:
    """JSON of Python's kind; NaN and Infinity are None: their instance is unusable. Raises ValueError."""
    return json.loads(text, parse_constant=lambda _: None)


class ByteRanges:
    """An open file and the places of its annotations; thread-safe, for `pread` has no position."""

    def __init__(self, path: Path, starts: Offsets, lengths: Offsets) -> None:
        """Args: starts, lengths: int64 (annotations,), in bytes."""
        self.starts, self.lengths, self._path = starts, lengths, path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def read(self, number: int) -> bytes:
        """One annotation as it stands in the file. Raises OSError."""
        start, length = int(self.starts[number]), int(self.lengths[number])
        found = retried(lambda: os.pread(self._file, length, start), str(self._path))
        if len(found) != length:
            raise self._shorter()
        return found

    def read_all(self, numbers: npt.NDArray[np.int32]) -> list[bytes]:
        """Several annotations, each as it stands in the file. Raises OSError."""
        starts, lengths = self.starts[numbers], self.lengths[numbers]
        try:
            found = list(map(os.pread, repeat(self._file), lengths.tolist(), starts.tolist()))
        except OSError:  # one by one, each tried again
            return list(map(self.read, numbers.tolist()))
        if sum(map(len, found)) != int(lengths.sum()):
            raise self._shorter()
        return found

    def _shorter(self) -> DatasetLayoutError:
        return DatasetLayoutError(f"{self._path} became shorter while it was read; run the command again")


@dataclass(frozen=True, slots=True)
class RangedAnnotations(Sequence[Entry]):
    """Annotations of one image, parsed each time."""

    ranges: ByteRanges
    numbers: npt.NDArray[np.int32]
    """Of the annotations in their file."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._entry(number) for number in self.numbers[place].tolist()]
        return self._entry(int(self.numbers[place]))

    def texts(self) -> list[bytes]:
        """As they stand in the file."""
        return self.ranges.read_all(self.numbers)

    @property
    def text_bytes(self) -> int:
        """Of all together in the file."""
        return int(self.ranges.lengths[self.numbers].sum())

    def _entry(self, number: int) -> Entry:
        try:
            entry = parsed(self.ranges.read(number))
        except ValueError as error:
            raise DatasetLayoutError(
                f"an annotation file changed while it was read ({error}); run the command again"
            ) from None
        return IdReader().read(entry)
