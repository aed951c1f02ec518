"""How many steps a run has whose recipe counts epochs."""

from __future__ import annotations

import math
from dataclasses import replace

from pipelines.config import TrainConfig


def with_steps(config: TrainConfig, records: int) -> TrainConfig:
    """`config` with the `max_steps` that its epochs come to; unchanged where it has none.

    An epoch of a recipe is `repeat` visits of each record. Batches run on over the end of an epoch, and the
    last step's rows that are left over are of the next.

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
