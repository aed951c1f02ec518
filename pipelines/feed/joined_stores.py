"""Several stores of the same records read as one, rows and views numbered consecutively."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.errors import UsageError
from stores.codecs.contract import states_sha256
from stores.errors import IdentityError, LevelMissing
from stores.format.canonical_json import diff_identity
from stores.format.plan import StorePlan
from stores.pyramid import PyramidSpec
from stores.reading.array_reader import Verify
from stores.reading.reader import Store, open_store
from stores.subsets import LISTED, Labels, Listed

Rows = npt.NDArray[np.int64]
BATCHES_AHEAD = 4
"""Batches of stores at URLs that are fetched while others are read."""
HostBuffers = Mapping[str, Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowIndex:
    """Record, view and shard of each row, for sampling."""

    keys: tuple[str, ...]
    views: npt.NDArray[np.int32]
    shards: npt.NDArray[np.int64] | None = None
    """Of each row, for those that are read forward; None where nothing is."""
    listed: Callable[[], Listed] | None = None
    """For subsets that are folds; None where the stores do not record them."""
    labels: Callable[[], Labels] | None = None
    """For subsets that are shots; None where records have no class each."""


class JoinedStores:
    """Training stores whose rows are numbered consecutively across them.

    Raises UsageError for rows of more than one padded size, which no batch can hold; IdentityError for
    stores of another data set, backbone or codec.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = tuple(stores)
        self._starts = np.cumsum([0, *(len(store) for store in stores)])
        for other in self._stores[1:]:
            _check_joinable(self._stores[0], other)
        sizes = sorted({name for store in self._stores for name in store.bins})
        if len(sizes) > 1:
            raise UsageError(
                f"{self.describe()} holds views of {len(sizes)} sizes ({', '.join(sizes[:5])}); "
                "heads train on a training split's store, whose views all have one size"
            )
        self.bin = sizes[0]

    @classmethod
    def open(cls, paths: Sequence[Path], *, verify: Verify, threads: int | None) -> JoinedStores:
        """Opens every store of `paths`."""
        return cls([open_store(path, verify=verify, threads=threads) for path in paths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores)

    def describe(self) -> str:
        """The stores' paths, for messages."""
        return ", ".join(str(store.path) for store in self._stores)

    @property
    def pyramid(self) -> PyramidSpec:
        return self._stores[0].pyramid

    @property
    def codec(self) -> str:
        """The name of the codec of every store."""
        return self._stores[0].codec

    @property
    def plan(self) -> StorePlan:
        """Of the first store; the others' have its levels and its codec, with the same state."""
        return self._stores[0].plan

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of the first store; the others' differ in their views only."""
        return self._stores[0].identity

    @cached_property
    def index(self) -> RowIndex:
        """Record, view and shard of every row; a second store's view 0 comes after the first store's last."""
        views, shards, first_view, first_shard = [], [], 0, 0
        for store in self._stores:
            views.append(np.asarray(store.views, np.int32) + first_view)
            shards.append(store.shards + first_shard)
            first_view += store.view_count
            first_shard += sum(b.shards for b in store.plan.bins)
        keys = tuple(key for store in self._stores for key in store.keys)
        records_lists = all(any(t.name == LISTED for t in store.plan.targets) for store in self._stores)
        return RowIndex(
            keys=keys,
            views=np.concatenate(views),
            shards=np.concatenate(shards),
            listed=self._listed if records_lists else None,
            labels=self._labels if "label" in self.targets else None,
        )

    def _labels(self) -> Labels:
        found: Labels = {}
        for store in self._stores:
            found = {**labels_of(store, "label"), **found}
        return found

    def _listed(self) -> Listed:
        """Where the data set's annotation file lists each record, from the records' first rows."""
        found: dict[str, tuple[int, int]] = {}
        for store in self._stores:
            first_rows = {key: row for row, key in reversed(list(enumerate(store.keys))) if key not in found}
            targets = store.read_targets(list(first_rows.values()), (LISTED,))
            for key, target in zip(first_rows, targets, strict=True):
                position, count = target[LISTED].tolist()
                found[key] = position, count
        return found

    def buffers(self, rows: int, levels: Sequence[str]) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Memory for `rows` encoded rows, to be reused. Raises LevelMissing, naming store and levels."""
        missing = [level for level in levels if level not in self.pyramid]
        if missing:
            raise LevelMissing(
                f"{self.describe()} holds no level {', '.join(missing)}; available: "
                f"{', '.join(self.pyramid.names)}"
            )
        made: dict[str, dict[str, npt.NDArray[Any]]] = self._stores[0].buffers(rows, self.bin, tuple(levels))
        return made

    def read_encoded(self, rows: Rows, levels: Sequence[str], out: HostBuffers) -> Rows:
        """Fills `out` with the rows and returns them as they stand in it: those of the first store first."""
        ordered = self.in_read_order(rows)
        start = 0
        for which, part in self._by_store(rows):
            place = slice(start, start + len(part))
            target = {level: {name: array[place] for name, array in out[level].items()} for level in levels}
            self._stores[which].read_encoded(part, tuple(levels), out=target)
            start += len(part)
        return ordered

    def announced(
        self, batches: Iterator[Rows], levels: Sequence[str], targets: Sequence[str]
    ) -> Iterator[Rows]:
        """The rows of each batch, BATCHES_AHEAD of them begun to be fetched where a store is at a URL."""
        if not any(store.is_remote for store in self._stores):
            return batches
        return self._announced(batches, levels, targets)

    def _announced(
        self, batches: Iterator[Rows], levels: Sequence[str], targets: Sequence[str]
    ) -> Iterator[Rows]:
        waiting: deque[Rows] = deque()
        for rows in batches:
            for which, part in self._by_store(rows):
                self._stores[which].prefetch(part, tuple(levels), tuple(targets))
            waiting.append(rows)
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def in_read_order(self, rows: Rows) -> Rows:
        """The rows as `read_encoded` returns them: those of the first store first."""
        return np.concatenate([part + self._starts[which] for which, part in self._by_store(rows)])

    @property
    def targets(self) -> frozenset[str]:
        """Names of the targets that every store holds."""
        return frozenset.intersection(*(frozenset(store.targets) for store in self._stores))

    def read_targets(self, rows: Rows, names: Sequence[str]) -> list[dict[str, npt.NDArray[Any]]]:
        """The targets of rows as `read_encoded` returned them."""
        found: list[dict[str, npt.NDArray[Any]]] = []
        for which, part in self._by_store(rows):
            found += self._stores[which].read_targets(part, tuple(names))
        return found

    def valid_hw(self, rows: Rows) -> list[tuple[int, int]]:
        """Of each row, the size in pixels before padding."""
        sizes = [self._stores[which].valid_hw[part] for which, part in self._by_store(rows)]
        return [(int(height), int(width)) for height, width in np.concatenate(sizes)]

    def keys(self, rows: Rows) -> tuple[str, ...]:
        """Of each row, its record."""
        return tuple(self.index.keys[row] for row in rows)

    def close(self) -> None:
        """Closes every store."""
        for store in self._stores:
            store.close()

    def parts(self, rows: Rows) -> Iterator[tuple[Store, Rows]]:
        """Each store that holds some of the rows, with its own numbers of them, as `read_encoded` does."""
        return ((self._stores[which], part) for which, part in self._by_store(rows))

    def _by_store(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Which store, and its own numbers of those of `rows` it holds, in their order."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for which in range(len(self._stores)):
            if (mine := rows[owner == which]).size:
                yield which, mine - self._starts[which]


def labels_of(store: Store, target: str) -> Labels:
    """The class of each record of a store, from its first row."""
    first_rows = {key: row for row, key in reversed(list(enumerate(store.keys)))}
    targets = store.read_targets(list(first_rows.values()), (target,))
    return {key: int(found[target]) for key, found in zip(first_rows, targets, strict=True)}


def _check_joinable(first: Store, other: Store) -> None:
    """Raises IdentityError unless two stores differ in nothing but their views."""
    if first.codec != other.codec:
        raise IdentityError(
            "codec", first.codec, other.codec, f"{first.path} and {other.path} must have the same codec"
        )
    states = _state_digest(first), _state_digest(other)
    if states[0] != states[1]:
        advice = (
            f"{first.path} and {other.path} were made by codecs fitted to different rows; use one of them"
        )
        raise IdentityError("the fitted state of the codec (sha256)", states[0], states[1], advice)
    for field, mine, theirs in diff_identity(dict(first.identity), dict(other.identity)):
        if field.partition(".")[0] != "views":
            raise IdentityError(
                field, mine, theirs, f"{first.path} and {other.path} must hold views of the same records"
            )


def _state_digest(store: Store) -> str | None:
    return None if store.plan.codec_state is None else states_sha256(store.plan.codec_state)
