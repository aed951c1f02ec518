"""`train-head`: a head, or several side by side, trained from stores or, with --online, on the live
backbone."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import torch

from pipelines.catalog.choose_store import find_training_stores
from pipelines.catalog.missing_levels import holds_pixels, lacks_first_levels
from pipelines.cli.head_variants import ManyHeadsConfig
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import StoreData, TrainingData
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.ranks import Ranks, join_ranks, ranks_of
from pipelines.machine.devices import choose_device
from pipelines.training.fit import fit
from pipelines.training.run_length import with_steps
from pipelines.training.run_setup import build_module, prepare, report
from pipelines.training.seeds import seeds_of, train_seeds


def run(config: TrainConfig | ManyHeadsConfig) -> dict[str, Any]:
    """Trains or resumes a run, or several. Returns its folder, its last figures and its speed.

    Raises UsageError where no store fits or it lacks a level the head needs, IdentityError where a resumed
    run's stores are not its own, WorkFailed where the loss diverges.
    """
    if len(seeds_of(config)) > 1:
        return train_seeds(config, run)
    if isinstance(config, ManyHeadsConfig):
        from pipelines.training.many_heads import train_side_by_side  # which is made of this module's parts

        return train_side_by_side(config)
    device = device_of_rank(config.device, ranks_of(os.environ))
    ranks = join_ranks(device)
    with ExitStack() as opened:
        data = open_data(config, device)
        opened.callback(data.close)
        config = with_steps(config, data.records)
        head = prepare(build_module(config, data), data, device, ranks, opened)
        seconds = fit(
            config,
            head.module,
            data,
            head.folder,
            device,
            validation=head.validation,
            checkpoint=head.checkpoint,
        )
    return report(head, seconds) if ranks.is_first else {}


def device_of_rank(name: str, ranks: Ranks) -> torch.device:
    """The device of `--device`; of the GPUs, each rank of a machine takes its own."""
    device = choose_device(name)
    if device.type == "cuda" and ranks.world > 1:
        return choose_device(f"cuda:{ranks.local_rank}")
    return device


def open_data(config: TrainConfig, device: torch.device) -> TrainingData:
    """Where the batches of a run come from."""
    if config.online:
        from pipelines.feed.online_data import (
            OnlineData,
        )  # needs the backbone's packages; training from a store must not

        return OnlineData.open(config, device)
    paths = find_training_stores(config)
    stores = JoinedStores.open(paths, verify=config.verify, threads=config.threads)
    of_images = next(iter(stores)).plan.frames is None  # levels of videos are not recomputed
    if of_images and lacks_first_levels(stores.pyramid) and (config.pixels or holds_pixels(stores.identity)):
        from pipelines.feed.recomputed_data import DeepData  # needs the backbone's packages too

        return DeepData(stores, config)
    return StoreData(stores, config)
