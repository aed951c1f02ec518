"""What only heads of clips need of training: their schedule, and which of their weights do not decay."""

import math

import pytest

from heads import build_head
from pipelines.config import ScheduleConfig
from pipelines.module import undecayed_parameters
from pipelines.schedules import learning_rate
from tests.heads.pyramids import clip_pyramid


def test_warm_up_by_share_keeps_the_shape_of_any_length() -> None:
    """Table 13: 2.5 of 30 epochs, then a cosine."""
    schedule = ScheduleConfig(shape="cosine", warmup_share=2.5 / 30, warmup_start=1e-6)
    for steps_of_epoch in (4, 3757):
        steps = 30 * steps_of_epoch
        rates = [
            learning_rate(round(epoch * steps_of_epoch), 3e-4, schedule, steps)
            for epoch in (0, 1.25, 2.5, 15)
        ]
        decays = [(1 + math.cos(math.pi * epoch / 30)) / 2 for epoch in (0, 1.25, 2.5, 15)]
        expected = [3e-4 * decay * share for decay, share in zip(decays, (1e-6, 0.5, 1, 1), strict=True)]
        assert rates == pytest.approx(expected, rel=1e-2)


def test_a_share_outside_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_share 2\.5"):
        ScheduleConfig(warmup_share=2.5)


def test_blocks_decay_their_projections_alone() -> None:
    """The norms, the biases of q and v, the logit scales and the network of the position bias do not."""
    head = build_head("global2", "video", clip_pyramid(32), 5)
    exempt = {id(parameter) for parameter in undecayed_parameters(head)}
    decayed = {name for name, parameter in head.named_parameters() if id(parameter) not in exempt}
    matrices = ("attention.qkv.weight", "attention.projection.weight", "mlp.0.weight", "mlp.2.weight")
    biases = ("attention.projection.bias", "mlp.0.bias", "mlp.2.bias")
    inside = {f"blocks.{block}.{name}" for block in (0, 1) for name in (*matrices, *biases)}
    assert decayed == inside | {"classifier.weight", "classifier.bias"}
