"""A test store opened for one run, with what recomputes the levels that it lacks."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipelines.catalog.missing_levels import PixelsFrom, lacking
from pipelines.runs.run_folder import RunRecord
from pipelines.runs.view_scale import scale_differences, short_side_of
from stores.errors import IdentityError
from stores.reading.reader import Store, open_store

if TYPE_CHECKING:  # at run time it loads the backbone's packages
    from pipelines.live.recompute_levels import ShallowLevels


def open_test_store(
    path: Path,
    record: RunRecord,
    opened: ExitStack,
    *,
    device: torch.device,
    threads: int | None,
    pixels: PixelsFrom | None,
    data: str | None,
    weights: str | None,
    short_side: int | None = None,
) -> tuple[Store, ShallowLevels | None]:
    """The store, and what recomputes the levels that the run's head needs beyond it; None where it holds all.

    Args:
        record: of the run.
        opened: closes both.
        device: to recompute on.
        threads: that read.
        short_side: of the test views, asked for instead of the training scale's; None: the latter's.
        pixels, data, weights: as of `pipelines.live.recompute_levels.open_shallow_levels`.

    Raises IdentityError for a store of another data set, classes, backbone or scale, and as `open_store` and
    `open_shallow_levels` do.
    """
    store = opened.enter_context(open_store(path, threads=threads))
    record.check_same_source(store.identity, str(path))
    _check_same_scale(store, record, short_side)
    if not lacking(record.levels, store.levels):
        return store, None
    # Late: needs the backbone's packages, which measuring on a full store must not load.
    from pipelines.live.recompute_levels import open_shallow_levels

    shallow = open_shallow_levels(
        store, record.levels,
        pixels=pixels, data=data, weights=weights, device=device, workers=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    if shallow is not None:
        opened.callback(shallow.close)
    return store, shallow


def _check_same_scale(store: Store, record: RunRecord, short_side: int | None) -> None:
    """Raises IdentityError where a store shows records at another scale than the head was trained at."""
    trained, views = record.identity["views"], store.identity["views"]
    for field, expected, found in scale_differences(trained, views, short_side):
        # Late, for an error only: it needs the data sets.
        from pipelines.catalog.extract_line import extract_line

        recipe = None if views["recipe"] == "single" else views["recipe"]
        line = extract_line(record, split=store.identity["dataset"]["split"], views=recipe)
        anyway = short_side_of(views)
        raise IdentityError(
            field,
            expected,
            found,
            f"{store.path} is not of the scale of the head's training; make one that is, with WEIGHTS and "
            f"DATA of the training store:\n  {line}\nor pass --live"
            + (f", or --short-side {anyway} to measure at the store's scale" if anyway else ""),
        )
