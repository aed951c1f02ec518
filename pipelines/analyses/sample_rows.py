"""Rows of a store that an analysis reads: the first of the order of their keys, of one padded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.analyses.cost import FEWEST_ROWS
from pipelines.errors import UsageError
from stores.errors import IdentityError
from stores.reading.reader import Store
from stores.subsets import key_order


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSample:
    """Rows of one store, in the order of the sample."""

    rows: tuple[int, ...]
    shown_hw: tuple[int, int]
    """Pixels that every row shows, from its upper left: its padding and what others lack is cut off."""
    note: str
    """How they were chosen."""


def sample_rows(store: Store, count: int) -> RowSample:
    """Up to `count` rows of the bin with most rows: the first view of each record, in `key_order`, then the
    second, and so on.

    Where enough rows fill their padded size, only these are taken; else all maps are cut to what every row
    shows. Raises UsageError for a store without rows.
    """
    if not len(store):
        raise UsageError(f"{store.path} holds no rows")
    bins = np.asarray(store.bins)
    names, counts = np.unique(bins, return_counts=True)
    chosen = names[counts.argmax()]
    inside = np.flatnonzero(bins == chosen)
    full = inside[(store.valid_hw[inside] == store.padded_hw[inside]).all(1)]
    candidates = full if len(full) >= min(count, len(inside), FEWEST_ROWS) else inside
    rows = _in_key_order(store, candidates)[:count]
    height, width = store.valid_hw[list(rows)].min(0).tolist()
    words = [f"{len(rows)} rows of {height}x{width} px"]
    if len(names) > 1:
        words.append(f"of the largest of {len(names)} bins")
    if candidates is inside and len(full) < len(inside):
        words.append("maps cut to the cells that every row shows")
    return RowSample(rows=rows, shown_hw=(height, width), note=", ".join(words))


def _in_key_order(store: Store, candidates: npt.NDArray[np.int64]) -> tuple[int, ...]:
    by_key: dict[str, list[int]] = {}
    for row in candidates.tolist():
        by_key.setdefault(store.keys[row], []).append(row)
    ordered = [sorted(by_key[key], key=lambda row: int(store.views[row])) for key in key_order(by_key)]
    most = max(map(len, ordered))
    return tuple(rows[turn] for turn in range(most) for rows in ordered if turn < len(rows))


def same_rows(store: Store, sample: RowSample, other: Store) -> RowSample:
    """The rows of another store of the same records and views, in the order of the sample.

    Raises IdentityError where a record is missing there, or its view has other parameters.
    """
    advice = "CKA compares stores of the same records and views: extract both with the same views and seed"
    if store.plan.view_params != other.plan.view_params:
        raise IdentityError("views", store.plan.view_params, other.plan.view_params, advice)
    views = zip(other.keys, other.views.tolist(), strict=True)
    place = {key_and_view: row for row, key_and_view in enumerate(views)}
    found = []
    for row in sample.rows:
        key, view = store.keys[row], int(store.views[row])
        if (key, view) not in place:
            raise IdentityError("records", f"{key}, view {view}", "none", f"{other.path}: {advice}")
        mine, theirs = store.params[row].tolist(), other.params[place[key, view]].tolist()
        if mine != theirs:
            raise IdentityError(f"view parameters of {key}, view {view}", mine, theirs, advice)
        found.append(place[key, view])
    height, width = other.valid_hw[found].min(0).tolist()
    return RowSample(rows=tuple(found), shown_hw=(height, width), note=f"the same rows of {other.path}")


def read_maps(
    store: Store, sample: RowSample, levels: Sequence[str], limit: int | None = None
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Level -> (C, [T,] y, x) of each row, cut to the cells that all rows show."""
    for row in sample.rows[:limit]:
        maps = store.read_features([row], levels)
        yield {
            level: cut_to(maps[level][0], store.pyramid[level].stride_px, sample.shown_hw) for level in levels
        }


def cut_to(
    x: npt.NDArray[np.float32], stride_px: float, shown_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """The last two axes of a map cut to whole cells of what is shown; at least one cell; of a clip
    (T, C, y, x) to (C, T, y, x) first."""
    if x.ndim == 4:
        x = np.moveaxis(x, 0, 1)
    height, width = (max(1, int(side // stride_px)) for side in shown_hw)
    return x[..., :height, :width]


def values_a_row(store: Store, sample: RowSample, levels: Sequence[str], pool: str) -> dict[str, int]:
    """Values of a row by level."""
    found = {}
    for name in levels:
        level = store.pyramid[name]
        cells = [max(1, int(side // level.stride_px)) for side in sample.shown_hw]
        frames = store.plan.frames or 1
        found[name] = level.channels * (1 if pool == "gap" else frames * cells[0] * cells[1])
    return found
