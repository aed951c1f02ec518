"""Test views read from a store, one record at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from extract.codecs.on_device import level_codecs
from pipelines.errors import UsageError
from pipelines.feed.store_feed import dequantise
from pipelines.tasks import Task, TestView
from pipelines.tasks.contract import targets_there
from stores.errors import LevelMissing
from stores.reading.reader import Store

if TYPE_CHECKING:
    from pipelines.live.recompute_levels import ShallowLevels


def store_views(
    store: Store,
    levels: Sequence[str],
    targets: Sequence[str],
    device: torch.device,
    shallow: ShallowLevels | None = None,
) -> Iterator[TestView]:
    """The test views of a store with `targets`, those of one record together, in the order of its records.

    Args:
        shallow: what recomputes the levels that the store lacks; None where it holds them all.
    """
    truth: Mapping[str, npt.NDArray[Any]] = {}
    codecs = level_codecs(store.plan)
    shown = None
    for row in _rows_by_record(store):
        if store.keys[row] != shown:
            shown, truth = store.keys[row], store.read_targets([row], tuple(targets))[0]
        encoded = store.read_encoded([row], tuple(level for level in levels if level in store.levels))
        on_device = {level: _to_device(parts, device) for level, parts in encoded.items()}
        (height, width), (original_y, original_x) = store.valid_hw[row], store.original_hw[row]
        yield TestView(
            key=store.keys[row],
            features=_recomputed(shallow, store, row, device)
            | {level: dequantise(codecs[level], parts) for level, parts in on_device.items()},
            valid_hw=(int(height), int(width)),
            params=dict(zip(store.plan.view_params, store.params[row].tolist(), strict=True)),
            original_hw=(int(original_y), int(original_x)),
            truth=truth,
        )


def _recomputed(
    shallow: ShallowLevels | None, store: Store, row: int, device: torch.device
) -> dict[str, Tensor]:
    return {} if shallow is None else shallow.levels(_to_device(shallow.arrays(store, [row]), device))


def _rows_by_record(store: Store) -> list[int]:
    """Row numbers with the views of a record together; bins scatter them over the store."""
    rows_of: dict[str, list[int]] = {}
    for row in range(len(store)):
        rows_of.setdefault(store.keys[row], []).append(row)
    return [row for rows in rows_of.values() for row in rows]


def _to_device(parts: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in parts.items()}


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
