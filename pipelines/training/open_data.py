"""Where a run's batches come from, and the device it trains on."""

from __future__ import annotations

from pathlib import Path

import torch

from pipelines.catalog.choose_store import find_training_stores
from pipelines.catalog.missing_levels import holds_pixels, lacks_first_levels
from pipelines.catalog.stores import describe_store
from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.feed.datamodule import StoreData, TrainingData
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.ranks import Ranks
from pipelines.machine.devices import choose_device
from stores.remote.store_url import StoreUrl
from stores.writing.partial_store import commit_finished

PARTIAL = "partial"
"""Folder beside stores that are still being extracted, of what was finished of them when a run began."""


def device_of_rank(name: str, ranks: Ranks) -> torch.device:
    """The device of `--device`; of the GPUs, each rank of a machine takes its own."""
    device = choose_device(name)
    if device.type == "cuda" and ranks.world > 1:
        return choose_device(f"cuda:{ranks.local_rank}")
    return device


def finished_part(path: Path) -> Path:
    """A complete store as it is; of one that is still being extracted, what is finished now, which is put
    beside it into the folder `partial`."""
    if describe_store(path).complete:
        return path
    if isinstance(path, StoreUrl):
        raise UsageError(f"--allow-partial: {path} is no folder of this machine; wait until it is complete")
    part = commit_finished(path, path.parent / PARTIAL)
    print(
        f"{path} is still being extracted: {part.rows} of {part.rows_planned} rows, {part.shards} of "
        f"{part.shards_planned} shards are used"
    )
    return part.path


def open_data(config: TrainConfig, device: torch.device) -> TrainingData:
    """Where the batches of a run come from."""
    if config.online:
        # Late: needs the backbone's packages, which training from a store must not load.
        from pipelines.feed.online_data import OnlineData

        return OnlineData.open(config, device)
    paths = find_training_stores(config)
    if config.allow_partial:
        paths = [finished_part(path) for path in paths]
    stores = JoinedStores.open(paths, verify=config.verify, threads=config.threads)
    of_images = next(iter(stores)).plan.frames is None  # levels of videos are not recomputed
    if of_images and lacks_first_levels(stores.pyramid) and (config.pixels or holds_pixels(stores.identity)):
        # Late: needs the backbone's packages too.
        from pipelines.feed.recomputed_data import DeepData

        return DeepData(stores, config)
    return StoreData(stores, config)
