"""open_store and Store: rows of a committed store, checked as they are read.

Every stored chunk, of features, scales, targets and pixels alike, has its CRC32C in a table beside its array
(`levels/p4/crc`, `levels/p4/scale_crc`, `targets/labels_crc`, `pixels_crc`). These tables and the lengths
of ragged rows are bound by the manifest; what is read is compared with them, never with checksums inside a
shard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt

from stores.errors import IntegrityError, LevelMissing
from stores.format.pixel_differences import undo_differences
from stores.reading.array_reader import VERIFY_MODES, Verify
from stores.reading.committed_store import CommittedStore, read_committed
from stores.reading.encoded_rows import Array, Encoded, EncodedRows
from stores.reading.html_table import html_table
from stores.reading.row import Row
from stores.reading.row_numbers import ManyRows, Rows, is_one_row, row_numbers
from stores.reading.target_rows import TargetRows

if TYPE_CHECKING:
    import xarray
    import zarr

_MOST_THREADS = 4
_BLOCK_BYTES = 16 << 20  # 16 MiB: enough to keep a few threads busy
_BLOCK_ROWS = 256  # where features are so small that targets outweigh them


def open_store(path: str | Path, *, verify: Verify = "always", threads: int | None = None) -> Store:
    """Opens a committed store for reading.

    Args:
        path: the store's folder, or its URL.
        verify: when rows are compared with their CRC32C. With `first-epoch` (a row's first read) and `off`,
            corrupt bytes can go unnoticed.
        threads: threads that read a batch, the caller's own included; None for one a processor, at most four.

    Raises:
        NoSuchStore: no store at this path.
        IncompleteStore: its extraction has not finished.
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
    return Store(read_committed(path), verify=verify, threads=threads)


class Store(EncodedRows):
    """A committed store. Thread-safe; unpickling opens the store again.

    Rows are numbers, a slice, a boolean mask over the whole store, or a list, array or CPU tensor of either;
    negative numbers count from the end (see `Rows`). Reading raises IndexError for a row that does not exist,
    TypeError for what names no rows, MixedBins for rows of several bins, IntegrityError for damage (naming
    store, shard and row), OSError where the disk failed and ValueError once the store is closed.

    `store[i]` is one `Row`, and iterating gives every row in order, of any bin; `store[rows]` for several
    rows is what `read_features(rows)` returns. Mind the time axis of clips: a Row has (C, T, y, x),
    read_features (n, T, C, y, x).
    """

    def __init__(self, committed: CommittedStore, *, verify: Verify, threads: int) -> None:
        super().__init__(committed, verify=verify, threads=threads)
        self._codecs = {level: self.plan.level_codec(level) for level in self.levels}
        self._targets = TargetRows(str(self.path), self.plan, self._arrays, at_once=threads)

    def __repr__(self) -> str:
        names = [b.name for b in self.plan.bins]
        bins = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        skipped = f" ({len(self.skipped)} skipped)" if self.skipped else ""
        return (
            f"Store({str(self.path)!r}, rows: {len(self)}{skipped}, views: {self.view_count}, "
            f"levels: {', '.join(self.levels)}, codec: {self.codec}, "
            f"targets: {', '.join(self.targets) or 'none'}, bins: {bins}"
            f"{', closed' if self._arrays.is_closed else ''})"
        )

    def _repr_html_(self) -> str:
        levels = ", ".join(
            f"{level.name} ({level.channels} channels, stride {level.stride_px:g})"
            for level in self.plan.pyramid
            if level.name in self.levels
        )
        dataset, backbone = self.identity["dataset"], self.identity["backbone"]
        return html_table(
            f"Store {self.path.name}",
            {
                "data": f"{dataset.get('name')}, split {dataset.get('split')}",
                "backbone": backbone.get("model"),
                "rows": f"{len(self)}, {self.view_count} of each record, {len(self.skipped)} skipped",
                "levels": levels,
                "codec": self.codec,
                "targets": ", ".join(self.targets) or "none",
                "bins": ", ".join(f"{each.name}: {each.rows} rows" for each in self.plan.bins),
            },
        )

    @overload
    def __getitem__(self, rows: int) -> Row: ...

    @overload
    def __getitem__(self, rows: ManyRows) -> dict[str, npt.NDArray[np.float32]]: ...

    def __getitem__(self, rows: Rows) -> Row | dict[str, npt.NDArray[np.float32]]:
        """One row with its targets, or the features of several rows as `read_features` returns them."""
        if not is_one_row(rows):
            return self.read_features(rows)
        (row,) = self._read_rows(row_numbers(rows, len(self), str(self.path)))
        return row

    def __iter__(self) -> Iterator[Row]:
        """Every row in order, read in blocks: a block's stored bytes and one decoded row are in memory."""
        self._arrays.check_open()
        sizes = [b.height_px * b.width_px for b in self.plan.bins]
        specs = self._level_specs(sizes.index(max(sizes)), None).values()
        row_bytes = sum(spec.row_bytes for kinds in specs for spec in kinds.values())
        block_rows = min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // row_bytes))
        for start in range(0, len(self), block_rows):
            yield from self._read_rows(np.arange(start, min(start + block_rows, len(self))))

    def _read_rows(self, rows: npt.NDArray[np.int64]) -> Iterator[Row]:
        """These rows of any bins in their order, with one read a bin."""
        bins, found = self._bin_of[rows], dict[int, tuple[Encoded, dict[str, Array]]]()
        for index in np.unique(bins):
            some = rows[bins == index]
            encoded, targets = self.read_encoded(some), self.read_targets(some)
            for at, row in enumerate(some.tolist()):
                found[row] = _row_of(encoded, at), targets[at]
        for row in rows.tolist():
            levels, row_targets = found.pop(row)
            yield Row(
                key=self.keys[row],
                view=int(self.views[row]),
                features={
                    level: np.array(np.moveaxis(self._codecs[level].decode(kinds), -1, 0), order="C")
                    for level, kinds in levels.items()
                },
                # A copy: a view of the block would keep all of it in memory.
                targets={name: np.array(array) for name, array in row_targets.items()},
            )

    def zarr(self) -> zarr.Group:
        """The store as zarr-python's own read-only group: its arrays as they are stored, codes and scales.

        Reads through it are UNCHECKED: zarr-python compares none of the manifest's checksums, and returns
        fill values for a shard that was deleted, emptied or swapped, and for rows that were skipped. Use it
        to look at a store; train and measure on `read_features`. docs/store-format.md names every array.
        """
        import zarr  # takes longer to import than most reads, and no other read needs it

        self._arrays.check_open()
        return zarr.open_group(str(self.path), mode="r", zarr_format=3)

    def xarray(self) -> xarray.DataTree:
        """The store as an xarray DataTree of its planned rows and bins, read when used and CHECKED.

        Groups and arrays are those of `zarr()`, and so are the values, fills of skipped rows included; damage
        raises IntegrityError. `q` has the attributes `decode` (such as "value = q * scale"), `codec`,
        `level`, `stride_px`, `stage` and `layout`; `rows` has the coordinate `record` (the key of each
        planned row), arrays of a bin `plan_row` (the places of its rows in `rows`). Dimensions of one name
        and several lengths are renamed. Reading raises ValueError once the store is closed.

        Raises ImportError without xarray, which is the extra `xarray`.
        """
        self._arrays.check_open()
        try:
            # Late: xarray is an extra, and takes a second to import.
            from stores.reading.xarray_tree import xarray_tree
        except ModuleNotFoundError as error:
            raise ImportError(
                "Store.xarray() needs xarray: pip install --constraint constraints.txt -e '.[xarray]'"
            ) from error
        return xarray_tree(self._committed, self._arrays)

    def read_features(
        self, rows: Rows, levels: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Decoded features by level, in the order asked: float32 (n, channel, y, x), of clips
        (n, time, channel, y, x), C-contiguous.

        Args:
            rows: of this store, all of one bin; a single number gives n = 1.
            levels: None for all.

        Raises LevelMissing where the store does not hold a level.
        """
        encoded = self.read_encoded(rows, levels)
        return {
            level: np.ascontiguousarray(np.moveaxis(self._codecs[level].decode(arrays), -1, -3))
            for level, arrays in encoded.items()
        }

    def read_pixels(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """The views' RGB, uint8 (n, [time,] y, x, 3). Raises LevelMissing where the store holds no pixels."""
        if not self.plan.pixels:
            raise LevelMissing(f"{self.path} holds no pixels; extract with --pixels stored")
        index, local = self._locate(rows)
        stored = self._arrays.read(index, "pixels", local)
        return undo_differences(stored) if self.plan.pixel_differences else stored

    def read_targets(self, rows: Rows, names: Sequence[str] | None = None) -> list[dict[str, Array]]:
        """The targets of each row by name, in their own dtypes and shapes; `names` None for all.

        Raises KeyError for a target the store does not hold.
        """
        index, local = self._locate(rows)
        found: list[dict[str, Array]] = [{} for _ in local]
        for target in self._targets.named(names):
            for row, array in enumerate(self._targets.read(target, index, local)):
                found[row][target.name] = array
        return found

    def close(self) -> None:
        """Closes the files and threads; reading raises ValueError from then on."""
        self._arrays.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_same, (str(self.path), self._verify, self._threads, self.manifest_digest)


def _row_of(encoded: Encoded, at: int) -> Encoded:
    """One row of what was read together, as views."""
    return {level: {kind: array[at] for kind, array in kinds.items()} for level, kinds in encoded.items()}


def _open_same(path: str, verify: Verify, threads: int, manifest_digest: str) -> Store:
    store = open_store(path, verify=verify, threads=threads)
    if store.manifest_digest != manifest_digest:
        raise IntegrityError(f"{path} is not the store that was pickled: its manifest's sha256 differs")
    return store
