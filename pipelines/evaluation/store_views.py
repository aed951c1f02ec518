"""Test views read from a store: rows of one shape together, read ahead of the head.

Letters in tensor names: N rows, C channels, T frames, y and x cells.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from pipelines.errors import UsageError
from pipelines.feed.prefetch import read_ahead
from pipelines.feed.transfer import Sent, Transfer
from pipelines.tasks import Task, TestView
from pipelines.tasks.contract import VIEWS_AT_ONCE, targets_there
from stores.errors import LevelMissing
from stores.reading.reader import Store

if TYPE_CHECKING:
    from pipelines.live.recompute_levels import ShallowLevels

_SLOTS = 3
"""Batches on the host: one being read into, one waiting, one being dequantised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """Rows of one bin that follow each other."""

    rows: list[int]
    truths: Sequence[Mapping[str, npt.NDArray[Any]]]
    sent: Sent


def store_views(
    store: Store,
    levels: Sequence[str],
    targets: Sequence[str],
    device: torch.device,
    shallow: ShallowLevels | None = None,
) -> Generator[TestView, None, None]:
    """The test views of a store with `targets`: those of one record together, records whose views have the
    same bins together, else in the order of the store.

    The features of up to VIEWS_AT_ONCE views of one shape are rows of one tensor, see
    `pipelines.tasks.contract.same_shapes`. A thread reads them a batch ahead; it ends when this iterator is
    closed.

    Args:
        shallow: what recomputes the levels that the store lacks; None where it holds them all.
    """
    transfer, place_of = Transfer(store.plan, device), _record_places(store)
    ahead = read_ahead(_loaded(store, levels, targets, transfer, shallow), depth=1)
    try:
        for loaded in ahead:
            features = transfer.features(loaded.sent)
            if shallow is not None:
                features |= shallow.levels(loaded.sent.others[0])
            for place, (row, truth) in enumerate(zip(loaded.rows, loaded.truths, strict=True)):
                (height, width), (original_y, original_x) = store.valid_hw[row], store.original_hw[row]
                yield TestView(
                    key=store.keys[row],
                    features={level: x_NCTyx[place : place + 1] for level, x_NCTyx in features.items()},
                    valid_hw=(int(height), int(width)),
                    params=dict(zip(store.plan.view_params, store.params[row].tolist(), strict=True)),
                    original_hw=(int(original_y), int(original_x)),
                    truth=truth,
                    record=place_of[store.keys[row]],
                )
    finally:
        ahead.close()


def _loaded(
    store: Store,
    levels: Sequence[str],
    targets: Sequence[str],
    transfer: Transfer,
    shallow: ShallowLevels | None,
) -> Iterator[_Loaded]:
    """The rows of a store in the order that `store_views` gives. Runs in the reading thread."""
    stored = tuple(level for level in levels if level in store.levels)
    shown, truth = "", dict[str, npt.NDArray[Any]]()
    for bin_name, run in _runs(store):
        buffers = [store.buffers(min(VIEWS_AT_ONCE, len(run)), bin_name, stored) for _ in range(_SLOTS)]
        slots = [transfer.slot(each) for each in buffers]
        for number, start in enumerate(range(0, len(run), VIEWS_AT_ONCE)):
            rows, slot, truths = run[start : start + VIEWS_AT_ONCE], slots[number % _SLOTS], []
            slot.wait_until_free()
            store.read_encoded(rows, stored, slot.arrays)
            for row in rows:
                if store.keys[row] != shown:
                    shown, truth = store.keys[row], store.read_targets([row], tuple(targets))[0]
                truths.append(truth)
            others = [] if shallow is None else [shallow.arrays(store, rows)]
            yield _Loaded(rows=rows, truths=truths, sent=transfer.send(slot, len(rows), others))


def _runs(store: Store) -> Iterator[tuple[str, list[int]]]:
    """Rows that follow each other in one bin, the views of a record together."""
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(store.keys):
        rows_of.setdefault(key, []).append(row)
    bins = store.bins
    ordered = sorted(rows_of.values(), key=lambda rows: [bins[row] for row in rows])
    for name, run in groupby((row for rows in ordered for row in rows), key=lambda row: bins[row]):
        yield name, list(run)


def _record_places(store: Store) -> dict[str, int]:
    """The place of each record in the store."""
    return {key: place for place, key in enumerate(dict.fromkeys(store.keys))}


def check_measurable(
    store: Store,
    levels: Sequence[str],
    task: Task,
    shallow: ShallowLevels | None = None,
    *,
    no_truth: bool = False,
) -> None:
    """Raises LevelMissing or UsageError, naming the store, if a head cannot be evaluated on it."""
    if shallow is None and (missing := [level for level in levels if level not in store.levels]):
        raise LevelMissing(
            f"{store.path} lacks {', '.join(missing)}, which the run's head needs "
            f"(it holds {', '.join(store.levels)}); evaluate on another --store"
        )
    if no_truth:
        return
    if store.identity["dataset"].get("truth") is False:
        raise UsageError(
            f"{store.path} is of {store.identity['dataset']['split']}, whose truth is not published: pass "
            "--no-truth, which writes the results file of its server instead of scores"
        )
    wanted = targets_there(task, task.test_targets, store.targets)
    if missing := [target for target in wanted if target not in store.targets]:
        raise UsageError(
            f"{store.path} is not a test store: it lacks {', '.join(missing)}; extract a test split"
        )


def views_name(store: Store) -> str:
    """single, ms+flip, slide or 4x3: the store's view recipe; a single view of several is single."""
    recipe = str(store.identity["views"]["recipe"])
    return "single" if store.view_count == 1 and recipe != "slide" else recipe.replace("-", "+")
