"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from pipelines.config import ScheduleConfig

SHAPES = ("poly", "cosine", "step", "constant", "updown")


def learning_rate(step: int, peak: float, schedule: ScheduleConfig, max_steps: int) -> float:
    """The rate of optimiser step `step` (from 0): a decay towards `schedule.end` times a linear warm-up.

    As mmcv 1.x `PolyLrUpdaterHook(by_epoch=False, warmup='linear')` (runner/hooks/lr_updater.py), which the
    Swin UPerNet configurations use: the decay counts from step 0, and during the warm-up its value is
    multiplied by a factor rising from `warmup_start` to 1. `step` is `StepLrUpdaterHook` of the same file.

    >>> paper = ScheduleConfig(shape="poly", power=1.0, warmup_steps=1500)
    >>> [learning_rate(step, 2e-3, paper, 160_000) for step in (80_000, 160_000)]
    [0.001, 0.0]
    >>> learning_rate(750, 2e-3, paper, 160_000) < 1e-3 < learning_rate(1500, 2e-3, paper, 160_000)
    True
    >>> maskrcnn = ScheduleConfig(shape="step", milestones=(0.875, 0.9583333), warmup_steps=500)
    >>> [f"{learning_rate(epoch * 100, 3e-4, maskrcnn, 7200):.0e}" for epoch in (62, 63, 68, 69, 71)]
    ['3e-04', '3e-05', '3e-05', '3e-06', '3e-06']

    MAE's linear probe (mae@efb2a80 util/lr_sched.py) decays from the end of its warm-up, DINO's
    (dino@7c446df eval_linear.py) once an epoch:

    >>> mae = ScheduleConfig(shape="cosine", warmup_share=1 / 9, warmup_start=0.0, decay_from="warmup")
    >>> [round(learning_rate(step, 6.4, mae, 90), 4) for step in (0, 5, 10, 50, 90)]
    [0.0, 3.2, 6.4, 3.2, 0.0]
    >>> dino = ScheduleConfig(shape="cosine", warmup_steps=0, stairs=2)
    >>> [round(learning_rate(step, 1.0, dino, 10), 6) for step in (0, 4, 5, 9)]
    [1.0, 1.0, 0.5, 0.5]

    MIM-Depth-Estimation (59ba08d train.py) counts steps from 1, and rises for 12 of 25 epochs:

    >>> depth = ScheduleConfig(shape="updown", power=0.9, rise_share=12 / 25, end=0.06)
    >>> [round(1e4 * learning_rate(step, 5e-4, depth, 100), 4) for step in (0, 47, 71, 95, 99)]
    [0.4442, 5.0, 2.4813, 0.3, 0.3]

    Raises ValueError for an unknown shape.
    """
    if schedule.shape not in SHAPES:
        raise ValueError(f"schedule.shape {schedule.shape!r}: expected one of {', '.join(SHAPES)}")
    if schedule.shape == "updown":
        return _up_and_down(step + 1, peak, schedule, max_steps)
    warmup = warmup_steps(schedule, max_steps)
    if schedule.stairs is not None:
        step = step * schedule.stairs // max_steps * max_steps // schedule.stairs
    start = warmup if schedule.decay_from == "warmup" else 0
    left = 1 - min(1.0, max(0, step - start) / max(1, max_steps - start))
    decay = {
        "poly": math.pow(left, schedule.power),
        "cosine": (1 - math.cos(math.pi * left)) / 2,
        "step": math.pow(schedule.gamma, _milestones_passed(step, schedule, max_steps)),
        "constant": 1.0,
    }[schedule.shape]
    rate = peak * (schedule.end + (1 - schedule.end) * decay)
    if step >= warmup:
        return rate
    return rate * (1 - (1 - step / warmup) * (1 - schedule.warmup_start))


def _up_and_down(step: int, peak: float, schedule: ScheduleConfig, max_steps: int) -> float:
    """Of step `step`, from 1."""
    done, least = step / (schedule.rise_share * max_steps), peak * schedule.end
    if done < 1:
        return least + (peak - least) * math.pow(done, schedule.power)
    return max(least, peak - (peak - least) * math.pow(done - 1, schedule.power))


def _milestones_passed(step: int, schedule: ScheduleConfig, max_steps: int) -> int:
    return sum(step >= round(share * max_steps) for share in schedule.milestones)


def warmup_steps(schedule: ScheduleConfig, max_steps: int) -> int:
    """The warm-up of a run of `max_steps`: the recipe's share of it, else its steps, at most a tenth of it.

    A recipe's 1500 steps of 160,000 would otherwise be all of a run scaled down by --max-steps.

    >>> [warmup_steps(ScheduleConfig(warmup_steps=1500), steps) for steps in (160_000, 200)]
    [1500, 20]
    >>> warmup_steps(ScheduleConfig(warmup_share=2.5 / 30), 240)
    20
    """
    if schedule.warmup_share is not None:
        return round(schedule.warmup_share * max_steps)
    return min(schedule.warmup_steps, max_steps // 10)
