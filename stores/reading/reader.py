"""open_store and Store: the rows of a committed store, right or refused.

Every stored chunk, of features, scales, targets and pixels alike, has its CRC32C in a table beside its array
(`levels/p4/crc`, `levels/p4/scale_crc`, `targets/labels_crc`, `pixels_crc`). These tables and the lengths
of ragged rows are bound by the manifest; what is read is compared with them, and with nothing that stands
in a shard.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stores.codecs import codec
from stores.errors import IntegrityError, LevelMissing, MixedBins, PlanError
from stores.format.arrays import ArraySpec
from stores.format.pixel_differences import undo_differences
from stores.format.targets import DenseTarget, RaggedTarget, Target
from stores.reading.array_reader import VERIFY_MODES, Verify
from stores.reading.committed_store import CommittedStore, read_committed
from stores.reading.read_threads import Job
from stores.reading.store_arrays import StoreArrays, first_rows
from stores.reading.stored_rows import StoredRows

Array = npt.NDArray[Any]
Encoded = dict[str, dict[str, Array]]
"""By level the arrays of the codec: `q` (n, [time,] y, x, channel), for most `scale` (n, [time,] channel)."""

_MOST_THREADS = 4


def open_store(path: str | Path, *, verify: Verify = "always", threads: int | None = None) -> Store:
    """Opens a committed store for reading.

    Args:
        path: the store's folder.
        verify: when rows are compared with their CRC32C. `first-epoch` (a row's first read) and `off` give
            up the promise that a read is right or raises.
        threads: that read a batch, the caller's own included; None for one a processor, at most four.

    Raises:
        NoSuchStore: there is none.
        IncompleteStore: it was never finished.
        FormatError: an unknown version or feature.
        IntegrityError: a small file is not what the manifest says.
        ValueError: an unknown `verify` or fewer than one thread.
    """
    if verify not in VERIFY_MODES:
        raise ValueError(f"verify={verify!r}, expected one of {', '.join(VERIFY_MODES)}")
    if threads is None:
        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    if threads < 1:
        raise ValueError(f"threads={threads}, expected 1 or more")
    return Store(read_committed(Path(path)), verify=verify, threads=threads)


class Store(StoredRows):
    """A committed store. Safe for any number of threads; a pickled one is opened again where it arrives.

    Rows are a sequence of ints; reading raises IndexError for a row not there, MixedBins for rows of
    several bins, IntegrityError for damage (naming store, shard and row), OSError where the disk failed and
    ValueError once the store is closed.
    """

    def __init__(self, committed: CommittedStore, *, verify: Verify, threads: int) -> None:
        super().__init__(committed)
        self._verify: Verify = verify
        self._threads = threads
        self._arrays = StoreArrays(committed, verify, threads)

    @property
    def verify(self) -> Verify:
        return self._verify

    def buffers(self, rows: int, bin: str | None = None, levels: Sequence[str] | None = None) -> Encoded:
        """Memory for `read_encoded` to fill again and again.

        Args:
            rows: n, the most rows of a read.
            bin: its name "HxW"; None where the store has one bin.
            levels: None for all.
        """
        index = self._only_bin() if bin is None else self.plan.bin_index(bin)
        return {
            level: {kind: np.empty((rows, *spec.row_shape), spec.dtype) for kind, spec in kinds.items()}
            for level, kinds in self._level_specs(index, levels).items()
        }

    def read_encoded(
        self,
        rows: Sequence[int] | Array,
        levels: Sequence[str] | None = None,
        out: Mapping[str, Mapping[str, Array]] | None = None,
    ) -> Encoded:
        """Stored features as they lie on the disk, in the order asked.

        Args:
            rows: of this store, all of one bin.
            levels: None for all.
            out: what `buffers` returned, or arrays like it, C-contiguous and with room for at least these
                rows; its first rows are filled and returned as views. None for fresh memory, which is slower.

        Raises:
            LevelMissing: the store does not hold a level.
            ValueError: an array in `out` has another dtype or shape.
        """
        index, local = self._locate(rows)
        found: Encoded = {}
        jobs: list[Job] = []
        for level, kinds in self._level_specs(index, levels).items():
            found[level] = {}
            for kind, spec in kinds.items():
                target = first_rows(None if out is None else out[level][kind], len(local), spec)
                found[level][kind] = target
                jobs += self._arrays.jobs(index, f"levels/{level}/{kind}", local, target)
        self._arrays.run(jobs)
        return found

    def read_features(
        self, rows: Sequence[int] | Array, levels: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Decoded features by level: float32 (n, channel, y, x) or (n, time, channel, y, x)."""
        made = codec(self.plan.codec)
        encoded = self.read_encoded(rows, levels)
        return {
            level: np.ascontiguousarray(np.moveaxis(made.decode(arrays), -1, -3))
            for level, arrays in encoded.items()
        }

    def read_pixels(self, rows: Sequence[int] | Array) -> npt.NDArray[np.uint8]:
        """The views' RGB, uint8 (n, [time,] y, x, 3). Raises LevelMissing where the store holds no pixels."""
        if not self.plan.pixels:
            raise LevelMissing(f"{self.path} holds no pixels; extract with --pixels stored")
        index, local = self._locate(rows)
        stored = self._arrays.read(index, "pixels", local)
        return undo_differences(stored) if self.plan.pixel_differences else stored

    def read_targets(
        self, rows: Sequence[int] | Array, names: Sequence[str] | None = None
    ) -> list[dict[str, Array]]:
        """The targets of each row by name, in their own dtypes and shapes; `names` None for all.

        Raises KeyError for a target the store does not hold.
        """
        index, local = self._locate(rows)
        found: list[dict[str, Array]] = [{} for _ in local]
        for target in self._named_targets(names):
            for row, array in enumerate(self._read_target(target, index, local)):
                found[row][target.name] = array
        return found

    def _read_target(self, target: Target, index: int, local: list[int]) -> Sequence[Array]:
        name = f"targets/{target.name}"
        if isinstance(target, DenseTarget):
            return list(self._arrays.read(index, name, local))
        lengths = self._arrays.table(index, f"{name}_bytes")
        original_hw = self.plan.rows.original_hw[self.plan.bin_rows[index]]
        found: list[Array] = []
        for start in range(
            0, len(local), self._threads
        ):  # a few at a time: each takes the cap until it is cut
            some = local[start : start + self._threads]
            for row, flat in zip(some, self._arrays.read(index, name, some), strict=True):
                found.append(self._ragged_row(target, flat, int(lengths[row]), original_hw[row].tolist()))
        return found

    def _ragged_row(self, target: RaggedTarget, flat: Array, length: int, original_hw: list[int]) -> Array:
        if not 0 <= length <= len(flat):
            raise IntegrityError(f"{self.path}: a row of {target.name} tells {length} of {len(flat)} bytes")
        try:
            shape = target.row_shape(original_hw, length)
        except PlanError as error:
            raise IntegrityError(f"{self.path}: {error}") from None
        return flat[:length].copy().view(np.dtype(target.dtype).newbyteorder("<")).reshape(shape)

    def _named_targets(self, names: Sequence[str] | None) -> list[Target]:
        by_name = {target.name: target for target in self.plan.targets}
        unknown = sorted(set(names or ()) - set(by_name))
        if unknown:
            raise KeyError(
                f"{self.path} holds no target {', '.join(unknown)}; it has {', '.join(by_name) or 'none'}"
            )
        return [target for name, target in by_name.items() if names is None or name in names]

    def _only_bin(self) -> int:
        if len(self.plan.bins) > 1:
            raise MixedBins(
                f"{self.path} has bins {', '.join(b.name for b in self.plan.bins[:20])}: name one"
            )
        return 0

    def _locate(self, rows: Sequence[int] | Array) -> tuple[int, list[int]]:
        """The bin of these rows and their numbers in it."""
        asked = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(asked) == 0:
            return self._only_bin(), []
        if asked.min() < 0 or asked.max() >= len(self):
            raise IndexError(
                f"{self.path} has rows 0 to {len(self) - 1}, asked for {asked.min()} to {asked.max()}"
            )
        bins = self._bin_of[asked]
        if (bins != bins[0]).any():
            names = sorted({self.plan.bins[b].name for b in set(bins.tolist())})
            raise MixedBins(
                f"{self.path}: rows of the bins {', '.join(names)} in one read; read each bin by itself"
            )
        return int(bins[0]), self._local_of[asked].tolist()

    def _level_specs(self, index: int, levels: Sequence[str] | None) -> dict[str, dict[str, ArraySpec]]:
        wanted = self.levels if levels is None else tuple(levels)
        missing = [level for level in wanted if level not in self.levels]
        if missing:
            raise LevelMissing(f"{self.path} holds {', '.join(self.levels)}, not {', '.join(missing)}")
        kinds = tuple(codec(self.plan.codec).parts(1))
        return {
            level: {kind: self._arrays.reader(index, f"levels/{level}/{kind}").spec for kind in kinds}
            for level in wanted
        }

    def close(self) -> None:
        """Closes the files and threads; reading raises ValueError from now on."""
        self._arrays.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_same, (str(self.path), self._verify, self._threads, self.manifest_digest)


def _open_same(path: str, verify: Verify, threads: int, manifest_digest: str) -> Store:
    store = open_store(path, verify=verify, threads=threads)
    if store.manifest_digest != manifest_digest:
        raise IntegrityError(f"{path} is not the store that was pickled: its manifest's sha256 differs")
    return store
