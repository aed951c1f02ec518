"""Stored features of rows as they are on the disk: read and checked, not yet decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from stores.codecs import codec
from stores.errors import LevelMissing, MixedBins
from stores.format.array_spec import ArraySpec
from stores.reading.array_reader import RowJob, Verify
from stores.reading.committed_store import CommittedStore
from stores.reading.row_numbers import Rows, row_numbers
from stores.reading.store_arrays import StoreArrays, first_rows
from stores.reading.stored_rows import StoredRows

Array = npt.NDArray[Any]
Encoded = dict[str, dict[str, Array]]
"""By level the arrays of the codec: `q` (n, [time,] y, x, channel), for most `scale` (n, [time,] channel)."""


class EncodedRows(StoredRows):
    """The arrays of a store's codec, by row; see `Store`."""

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
        index = self._only_bin("name one") if bin is None else self.plan.bin_index(bin)
        return {
            level: {kind: spec.empty(rows) for kind, spec in kinds.items()}
            for level, kinds in self._level_specs(index, levels).items()
        }

    def read_encoded(
        self,
        rows: Rows,
        levels: Sequence[str] | None = None,
        out: Mapping[str, Mapping[str, Array]] | None = None,
    ) -> Encoded:
        """Stored features as they are on the disk, in the order asked.

        Args:
            rows: of this store, all of one bin.
            levels: None for all.
            out: what `buffers` returned, or arrays like it, of the same layout and with room for at least
                these rows; its first rows are filled and returned as views. None for fresh memory, which is
                slower.

        Raises:
            LevelMissing: the store does not hold a level.
            ValueError: an array in `out` has another dtype or shape.
        """
        index, local = self._locate(rows)
        found: Encoded = {}
        jobs: list[RowJob] = []
        for level, kinds in self._level_specs(index, levels).items():
            found[level] = {}
            for kind, spec in kinds.items():
                target = first_rows(None if out is None else out[level][kind], len(local), spec)
                found[level][kind] = target
                jobs += self._arrays.jobs(index, f"levels/{level}/{kind}", local, target)
        self._arrays.run(jobs)
        return found

    @property
    def is_remote(self) -> bool:
        """Whether it is read over requests."""
        return self._committed.folder.is_remote

    def prefetch(self, rows: Rows, levels: Sequence[str] | None = None, targets: Sequence[str] = ()) -> None:
        """Starts to fetch rows that will be read soon, and returns; nothing of a store on a disk.

        Args:
            rows: of this store, all of one bin.
            levels: None for all.
            targets: names of targets to be read with them.

        Errors are raised by whoever reads the rows.
        """
        if not self.is_remote:
            return
        index, local = self._locate(rows)
        specs = self._level_specs(index, levels)
        names = [f"levels/{level}/{kind}" for level, kinds in specs.items() for kind in kinds]
        names += [f"targets/{target}" for target in targets]
        self._arrays.prefetch(index, names, local)

    def _only_bin(self, instead: str) -> int:
        """The store's one bin. Raises MixedBins where it has several, with what to do instead."""
        if len(self.plan.bins) > 1:
            names = ", ".join(b.name for b in self.plan.bins[:20])
            raise MixedBins(f"{self.path} has {len(self.plan.bins)} bins ({names}): {instead}")
        return 0

    def _locate(self, rows: Rows) -> tuple[int, list[int]]:
        """The bin of these rows and their bin-local numbers. Raises as `Store` documents."""
        self._arrays.check_open()
        asked = row_numbers(rows, len(self), str(self.path))
        if len(asked) == 0:
            return self._only_bin("no rows were asked for, and their shape depends on the bin"), []
        bins = self._bin_of[asked]
        if (bins != bins[0]).any():
            names = sorted({self.plan.bins[b].name for b in set(bins.tolist())})
            raise MixedBins(
                f"{self.path}: rows of {len(names)} bins in one read ({', '.join(names[:20])}), expected one "
                "padded size; read rows whose store.bins are the same, or iterate over the store"
            )
        return int(bins[0]), self._local_of[asked].tolist()

    def _level_specs(self, index: int, levels: Sequence[str] | None) -> dict[str, dict[str, ArraySpec]]:
        if isinstance(levels, str):
            levels = (levels,)
        wanted = self.levels if levels is None else tuple(levels)
        missing = [level for level in wanted if level not in self.levels]
        if missing:
            raise LevelMissing(
                f"{self.path} holds no level {', '.join(missing)}; available: {', '.join(self.levels)}"
            )
        kinds = tuple(codec(self.plan.codec).parts(1))
        return {
            level: {kind: self._arrays.reader(index, f"levels/{level}/{kind}").spec for kind in kinds}
            for level in wanted
        }
