"""`train-head`: a head, or several side by side, trained from stores or, with --online, on the live
backbone."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from pipelines.config import ManyHeadsConfig, TrainConfig
from pipelines.feed.ranks import join_ranks, ranks_of
from pipelines.training.build_module import build_module
from pipelines.training.fit import fit
from pipelines.training.open_data import device_of_rank, open_data
from pipelines.training.run_length import with_steps
from pipelines.training.run_setup import prepare, report
from pipelines.training.several_runs.head_devices import devices_of, train_on
from pipelines.training.several_runs.many_heads import train_side_by_side
from pipelines.training.several_runs.seeds import seeds_of, train_seeds
from pipelines.training.several_runs.subsets import subsets_of, train_subsets


def run(config: TrainConfig | ManyHeadsConfig) -> dict[str, Any]:
    """Trains or resumes a run, or several. Returns its folder, its last figures and its speed.

    Raises UsageError where no store fits or it lacks a level the head needs, IdentityError where a resumed
    run's stores are not its own, WorkFailed where the loss diverges.
    """
    if len(subsets_of(config)) > 1:
        return train_subsets(config, run)
    devices = devices_of(config)
    if len(devices) > 1 and isinstance(config, ManyHeadsConfig):
        return train_on(devices, config)
    if len(seeds_of(config)) > 1:
        return train_seeds(config, run)
    if isinstance(config, ManyHeadsConfig):
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
            check=head.check,
        )
        return report(head, seconds) if ranks.is_first else {}
