"""Steps of a run, from its epochs, and its default intervals."""

from __future__ import annotations

import math
from dataclasses import replace

from pipelines.config import TrainConfig


def with_steps(config: TrainConfig, records: int) -> TrainConfig:
    """`config` with `max_steps` computed from its epochs; unchanged without epochs.

    An epoch of a recipe is `repeat` visits of each record. Batches run across the end of an epoch: the
    last step may hold rows of the next one.

    >>> paper = TrainConfig(head="bifpn5", epochs=12, repeat=10, batch_size=16)
    >>> with_steps(paper, 1173).max_steps  # 1 % of COCO
    8798

    Args:
        records: that the run draws from, after its subset.
    """
    if config.epochs is None:
        return config
    return replace(
        config, max_steps=max(1, math.ceil(config.epochs * config.repeat * records / config.batch_size))
    )


def share_of(max_steps: int) -> int:
    """A tenth of a run: the default interval of validations and checkpoints, in steps."""
    return max(1, max_steps // 10)
