"""A test store opened for one run, with what recomputes the levels that it lacks."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipelines.catalog.missing_levels import PixelsFrom, lacking
from pipelines.runs.run_folder import RunRecord
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
) -> tuple[Store, ShallowLevels | None]:
    """The store, and what recomputes the levels that the run's head needs beyond it; None where it holds all.

    Args:
        record: of the run.
        opened: closes both.
        device: to recompute on.
        threads: that read.
        pixels, data, weights: as of `pipelines.live.recompute_levels.open_shallow_levels`.

    Raises IdentityError for a store of another data set, classes or backbone, and as `open_store` and
    `open_shallow_levels` do.
    """
    store = opened.enter_context(open_store(path, threads=threads))
    record.check_same_source(store.identity, str(path))
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
