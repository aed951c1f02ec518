"""Where a run's batches come from, and the device it trains on."""

from __future__ import annotations

import torch

from pipelines.catalog.choose_store import find_training_stores
from pipelines.catalog.missing_levels import holds_pixels, lacks_first_levels
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import StoreData, TrainingData
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.ranks import Ranks
from pipelines.machine.devices import choose_device


def device_of_rank(name: str, ranks: Ranks) -> torch.device:
    """The device of `--device`; of the GPUs, each rank of a machine takes its own."""
    device = choose_device(name)
    if device.type == "cuda" and ranks.world > 1:
        return choose_device(f"cuda:{ranks.local_rank}")
    return device


def open_data(config: TrainConfig, device: torch.device) -> TrainingData:
    """Where the batches of a run come from."""
    if config.online:
        # Late: needs the backbone's packages, which training from a store must not load.
        from pipelines.feed.online_data import OnlineData

        return OnlineData.open(config, device)
    paths = find_training_stores(config)
    stores = JoinedStores.open(paths, verify=config.verify, threads=config.threads)
    of_images = next(iter(stores)).plan.frames is None  # levels of videos are not recomputed
    if of_images and lacks_first_levels(stores.pyramid) and (config.pixels or holds_pixels(stores.identity)):
        # Late: needs the backbone's packages too.
        from pipelines.feed.recomputed_data import DeepData

        return DeepData(stores, config)
    return StoreData(stores, config)
