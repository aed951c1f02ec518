"""Training data from stores of deep levels; the shallow levels are recomputed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extract.backbones.loading import card_of_identity
from extract.backbones.weights import require_source
from pipelines.catalog.known_weights import first_known_weights
from pipelines.catalog.missing_levels import check_recomputable, lacking
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import StoreData
from pipelines.feed.joined_stores import JoinedStores, Rows
from pipelines.feed.store_feed import Batch, Finish
from pipelines.live.recompute_levels import ShallowLevels, first_stages, full_pyramid, open_pixels
from stores.remote.store_url import store_path


class RecomputeLevels:
    """Adds levels to every batch of a feed; see `pipelines.feed.store_feed.Finish`."""

    def __init__(self, stores: JoinedStores, shallow: ShallowLevels) -> None:
        self._stores, self._shallow = stores, shallow

    def read(self, rows: Rows) -> Mapping[str, npt.NDArray[Any]]:
        parts = [self._shallow.arrays(store, own) for store, own in self._stores.parts(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def finish(self, batch: Batch, read: Mapping[str, Tensor]) -> Batch:
        return replace(batch, features={**self._shallow.levels(read), **batch.features})


class DeepData(StoreData):
    """As StoreData, plus the shallower levels that the head reads."""

    def __init__(self, stores: JoinedStores, config: TrainConfig) -> None:
        """Raises WeightsUnavailable, UsageError or what opening the data set raises, before a run begins."""
        self._first = next(iter(stores))
        super().__init__(stores, config)
        self.pyramid = full_pyramid(self.identity, stores.pyramid)
        backbone = self.identity["backbone"]
        folders = (store_path(config.stores), *(store.path.parent for store in stores))
        self._weights = config.weights or first_known_weights(folders, backbone["weights_sha256"])
        require_source(card_of_identity(backbone), self._weights or "timm")
        missing = lacking(self.pyramid.names, stores.pyramid.names)
        pixels = check_recomputable(self._first.plan, missing, config.pixels, self.describe())
        self._source = open_pixels(self._first, pixels, config.data, len(os.sched_getaffinity(0)))

    @property
    def stored_levels(self) -> tuple[str, ...]:
        return tuple(level for level in self.levels if level in self._joined.pyramid)

    def finish(self, device: torch.device) -> Finish | None:
        missing = lacking(self.levels, self._joined.pyramid.names)
        if not missing:
            return None
        backbone = first_stages(self._first, missing, self._weights, device)
        return RecomputeLevels(self._joined, ShallowLevels(backbone, self._source))

    def close(self) -> None:
        super().close()
        self._source.close()
