"""Fits a codec to sample rows, before the store is created by whoever comes first."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from extract.datasets.contract import Dataset
from extract.extractor.encode_batch import Backbone
from extract.extractor.row_loader import LoadedRow, RowLoader, SourceDigests
from stores.codecs import codec, needs_state
from stores.codecs.contract import FittedCodec
from stores.errors import PlanError
from stores.format.plan import StorePlan
from stores.subsets import key_order
from stores.writing.codec_fit import FIT_ROWS, cell_step, fitted_to

logger = logging.getLogger(__name__)

Values = npt.NDArray[np.float32]


def fit_codec(dataset: Dataset, plan: StorePlan, backbone: Backbone) -> StorePlan:
    """The plan with what its codec learned of each level; the same plan where the codec takes no state.

    Each row gives cells spread evenly over its map: its frames, rows and columns in turn.

    Raises PlanError where no row can be loaded. OSError, IdentityError as loading rows does.
    """
    made = codec(plan.codec)
    if not needs_state(made):
        return plan
    assert isinstance(made, FittedCodec)
    samples: dict[str, list[Values]] = {level: [] for level in plan.pyramid.names}
    for row in _loaded_rows(dataset, plan):
        for level, cells in _cells(plan, backbone, row).items():
            samples[level].append(cells)
    rows = len(next(iter(samples.values())))
    if not rows:
        raise PlanError(f"codec {plan.codec} cannot be fitted: none of the first rows can be loaded")
    logger.info("codec %s: fitted to %d rows", plan.codec, rows)
    return plan.with_state(fitted_to(made, samples))


def _loaded_rows(dataset: Dataset, plan: StorePlan) -> Iterator[LoadedRow]:
    """The first rows that can be loaded, view by view of each record."""
    loader = RowLoader(dataset, plan, SourceDigests())
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(plan.rows.keys):
        rows_of.setdefault(key, []).append(row)
    left = FIT_ROWS
    for key in key_order(rows_of):
        for loaded in loader.load_views(rows_of[key]).values():
            if isinstance(loaded, LoadedRow) and left:
                left -= 1
                yield loaded
        if not left:
            return


def _cells(plan: StorePlan, backbone: Backbone, row: LoadedRow) -> dict[str, Values]:
    """(K, C) cells of each level of one row."""
    images = torch.from_numpy(np.ascontiguousarray(row.pixels))[None].flatten(0, -4)
    valid_hw = torch.tensor([row.valid_hw] * len(images), dtype=torch.int32)
    with torch.inference_mode():
        levels = backbone(images.to(backbone.device), valid_hw)
        found = {}
        for level in plan.pyramid:
            cells = levels[level.name].flatten(0, -2)
            step = cell_step(len(cells), level.channels)
            found[level.name] = cells[::step].float().cpu().numpy()
    return found
