"""Row metadata of a store, known without reading a row: keys, views, bins, sizes, skipped rows."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.errors import RowSkipped
from stores.format.arrays import outcome_tables
from stores.format.plan import StorePlan
from stores.format.row_table import WRITTEN
from stores.key_table import KeyTable
from stores.pyramid import PyramidSpec
from stores.reading.committed_store import CommittedStore


class StoredRows:
    """The written rows of a store, numbered from 0 in plan order over all bins."""

    def __init__(self, committed: CommittedStore) -> None:
        self._committed = committed
        plan = committed.plan
        self._plan_rows = np.flatnonzero(committed.outcome == WRITTEN)
        self._bin_of: npt.NDArray[np.int32] = plan.rows.bin[self._plan_rows]
        local = np.empty(len(plan.rows), dtype=np.int64)
        for rows in plan.bin_rows:
            local[rows] = np.arange(len(rows))
        self._local_of = local[self._plan_rows]

    def __len__(self) -> int:
        return len(self._plan_rows)

    @property
    def path(self) -> Path:
        return self._committed.folder.path

    @property
    def plan(self) -> StorePlan:
        return self._committed.plan

    @property
    def identity(self) -> dict[str, Any]:
        return self.plan.identity

    @property
    def identity_digest(self) -> str:
        """64 hex digits."""
        return self.plan.identity_digest

    @property
    def manifest_digest(self) -> str:
        """sha256 of MANIFEST.json; if it equals a digest from a trusted source, the store is authentic."""
        return self._committed.manifest_digest

    @property
    def content_digest(self) -> str | None:
        """Of what the rows hold, however they are laid out; None in stores of older layouts, see
        `stores.checks.content.content_digest_of`."""
        return self._committed.manifest.content_digest

    @property
    def pyramid(self) -> PyramidSpec:
        return self.plan.pyramid

    @property
    def levels(self) -> tuple[str, ...]:
        return self.plan.pyramid.names

    @property
    def codec(self) -> str:
        return self.plan.codec

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.plan.targets)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The record key of each row."""
        keys = self.plan.rows.keys
        if isinstance(keys, KeyTable):
            return keys.take(self._plan_rows)
        return tuple(keys[row] for row in self._plan_rows.tolist())

    @cached_property
    def views(self) -> npt.NDArray[np.int32]:
        """(rows,) the view of each row."""
        return self._column(self.plan.rows.view)

    @property
    def view_count(self) -> int:
        """V: planned views of a record, skipped rows included."""
        return self.plan.rows.view_count

    @cached_property
    def bins(self) -> tuple[str, ...]:
        """The bin of each row, by its name "HxW"."""
        names = [b.name for b in self.plan.bins]
        return tuple(names[index] for index in self._bin_of.tolist())

    @cached_property
    def shards(self) -> npt.NDArray[np.int64]:
        """(rows,) the shard of each row, numbered over all bins."""
        bins = self.plan.bins
        first = np.cumsum([0, *(b.shards for b in bins)])[:-1]
        shard_rows = np.array([b.shard_rows for b in bins])
        found: npt.NDArray[np.int64] = first[self._bin_of] + self._local_of // shard_rows[self._bin_of]
        found.setflags(write=False)
        return found

    @cached_property
    def params(self) -> npt.NDArray[np.float64]:
        """(rows, P) the view parameters, whose names are the plan's view_params."""
        return self._column(self.plan.rows.params)

    @cached_property
    def padded_hw(self) -> npt.NDArray[np.int32]:
        """(rows, 2) pixels."""
        return self._column(self.plan.rows.padded_hw)

    @cached_property
    def valid_hw(self) -> npt.NDArray[np.int32]:
        """(rows, 2) pixels."""
        return self._column(self.plan.rows.valid_hw)

    @cached_property
    def original_hw(self) -> npt.NDArray[np.int32]:
        """(rows, 2) pixels."""
        return self._column(self.plan.rows.original_hw)

    @cached_property
    def source_sha256(self) -> npt.NDArray[np.uint8]:
        """(rows, 32) sha256 of each row's source file as it was read. Raises IntegrityError for damage."""
        table = self._committed.table(outcome_tables(self.plan)["source"])
        return self._column(table)

    @property
    def skipped(self) -> list[tuple[str, int, int, str]]:
        """The planned rows that hold no data: (record key, view, outcome code, reason)."""
        rows = self.plan.rows
        return [
            (rows.keys[s.row], int(rows.view[s.row]), s.code, s.reason)
            for s in self._committed.manifest.skipped
        ]

    @cached_property
    def _row_by_key(self) -> dict[tuple[str, int], int]:
        return {pair: row for row, pair in enumerate(zip(self.keys, self.views.tolist(), strict=True))}

    def find_row(self, key: str, view: int) -> int | None:
        """The row of a record under a view; None if it was skipped, or not planned."""
        return self._row_by_key.get((key, view))

    def row_of(self, key: str, view: int = 0) -> int:
        """The row of a record under a view.

        Raises RowSkipped if it was skipped, KeyError if the store was planned without it.
        """
        row = self.find_row(key, view)
        if row is not None:
            return row
        for skipped_key, skipped_view, code, reason in self.skipped:
            if (skipped_key, skipped_view) == (key, view):
                raise RowSkipped(
                    f"{self.path}: record {key!r}, view {view} was skipped (code {code}): {reason}"
                )
        raise KeyError(f"{self.path} was planned without record {key!r}, view {view}")

    def _column(self, planned: npt.NDArray[Any]) -> npt.NDArray[Any]:
        column = planned[self._plan_rows]
        column.setflags(write=False)
        return column
