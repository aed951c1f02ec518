"""LARS against timm's and MAE's rule, and the schedules of linear probes."""

import math

import pytest
import torch
from torch import nn

from pipelines.config import OptimizerConfig, ScheduleConfig
from pipelines.training.optimisation.lars import Lars
from pipelines.training.optimisation.optimizer import build_optimizer
from pipelines.training.optimisation.schedules import learning_rate


def trained(optimizer_of, steps: int = 20) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(8, 3)
    x, labels = torch.randn(32, 8), torch.randint(0, 3, (32,))
    optimizer = optimizer_of(layer)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(x), labels).backward()
        optimizer.step()
    return layer


@pytest.mark.oracle
def test_matrices_move_as_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm adapts biases too, so they are left out; without `always_adapt` it adapts nothing at decay 0."""
    from timm.optim import Lars as Timms

    def weights_alone(layer: nn.Linear) -> list[nn.Parameter]:
        layer.bias.requires_grad_(False)
        return [layer.weight]

    ours = trained(lambda layer: Lars(weights_alone(layer), lr=6.4))
    theirs = trained(
        lambda layer: Timms(
            weights_alone(layer), lr=6.4, momentum=0.9, trust_coeff=1e-3, eps=0.0, always_adapt=True
        )
    )
    assert not torch.equal(ours.weight, trained(lambda layer: Lars(weights_alone(layer), lr=6.0)).weight)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_maes_rule_written_out() -> None:
    """facebookresearch/mae util/lars.py, step by step: biases have no rate of their own and no decay."""
    lr, momentum, trust, decay = 0.5, 0.9, 1e-3, 0.1
    ours = trained(
        lambda layer: Lars(layer.parameters(), lr=lr, momentum=momentum, trust=trust, weight_decay=decay), 5
    )

    class Written(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self) -> None:
            for p in self.param_groups[0]["params"]:
                dp = p.grad
                if p.ndim > 1:
                    dp = dp + decay * p
                    dp = dp * (trust * p.norm() / dp.norm())
                mu = self.state[p].setdefault("mu", torch.zeros_like(p))
                mu.mul_(momentum).add_(dp)
                p.add_(mu, alpha=-lr)

    theirs = trained(lambda layer: Written(layer.parameters(), {}), 5)
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_zeros_are_not_divided_by() -> None:
    layer = nn.Linear(4, 2)
    nn.init.zeros_(layer.weight)
    optimizer = Lars(layer.parameters(), lr=1.0)
    layer(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    assert layer.weight.isfinite().all()


def test_optimizers_by_name() -> None:
    layer = nn.Linear(4, 2)
    kinds = {name: build_optimizer(layer, OptimizerConfig(name=name)) for name in ("adamw", "sgd", "lars")}
    assert [type(kind) for kind in kinds.values()] == [torch.optim.AdamW, torch.optim.SGD, Lars]
    assert kinds["sgd"].param_groups[0]["momentum"] == kinds["lars"].param_groups[0]["momentum"] == 0.9


def test_maes_schedule() -> None:
    """util/lr_sched.py at fractional epochs: 90 epochs of 78 steps, 10 of them warm-up."""
    schedule = ScheduleConfig(shape="cosine", warmup_share=1 / 9, warmup_start=0.0, decay_from="warmup")
    for step in range(0, 90 * 78, 101):
        epoch = step / 78
        expected = 6.4 * (
            epoch / 10 if epoch < 10 else 0.5 * (1 + math.cos(math.pi * (epoch - 10) / (90 - 10)))
        )
        assert learning_rate(step, 6.4, schedule, 90 * 78) == pytest.approx(expected, abs=1e-9)


def test_dinos_schedule() -> None:
    """torch's CosineAnnealingLR, stepped once in each of 100 epochs of 1251 steps."""
    schedule = ScheduleConfig(shape="cosine", warmup_steps=0, stairs=100)
    for step in range(0, 100 * 1251, 977):
        expected = 0.5 * (1 + math.cos(math.pi * (step // 1251) / 100))
        assert learning_rate(step, 1.0, schedule, 100 * 1251) == pytest.approx(expected, abs=1e-9)
