"""Which steps of a backbone must run in float32, found by trial.

Sharp attention amplifies rounding. With every logit scale at the clamp of 100 and res-post-norm weights of 1,
an error of 0.1 % in a block's input is 50 % three stages later, whichever product it came from; float32
attention alone removes a fifth of it. What helps is to keep the beginning exact, so that less is left to
amplify: the first steps of a network run in float32, as few as keep every level within `LIMIT`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbones.device_functions import functions_for
from extract.backbones.frozen_swin import StepMaker
from extract.backbones.timm_pyramid import SizeRefused
from extract.swin.window_rule import HW

logger = logging.getLogger(__name__)

LIMIT = 0.003
"""Largest error of a float16 level against float32: rms of the difference over rms of the level."""
_PROBE_LIMIT = 0.002
"""Largest error allowed on the probe image; others err by up to 1.3 times as much (uniform noise does)."""
PROBE_HW = (256, 320)
"""Pixels of the image tried: several windows a side in the first stages, and a padded last one."""


@dataclass(frozen=True, slots=True)
class FittedSteps:
    """A network's steps, the first `exact` of them in float32."""

    steps: Sequence[nn.Module]
    exact: int
    errors: Mapping[int, float]
    """Stage -> the error that all steps in the low precision would have; empty for float32."""


def fit_steps(
    makers: Sequence[StepMaker], dtype: torch.dtype, device: torch.device, *, limit: float = _PROBE_LIMIT
) -> FittedSteps:
    """Steps on `device`, as few as possible in float32 while every level of the probe is within `limit`.

    The float32 steps of the trial are made one at a time: a giant's need not fit beside those in float16.

    Args:
        dtype: float16 is fitted; bfloat16 is used as asked, its errors reported; float32 needs no trial.
    """
    steps = [maker.make(dtype).to(device) for maker in makers]
    if dtype is torch.float32:
        return FittedSteps(steps, 0, {})
    inputs, levels = _exact_maps(makers, device)
    ends = [maker.ends_stage for maker in makers]

    def errors_from(first: int) -> dict[int, float]:
        return _errors(steps[first:], ends[first:], inputs[first], levels)

    errors = errors_from(0)
    if dtype is torch.bfloat16 or max(errors.values()) <= limit:
        return FittedSteps(steps, 0, errors)
    within, beyond = len(steps), 0
    while within - beyond > 1:
        middle = (within + beyond) // 2
        if max(errors_from(middle).values(), default=0.0) <= limit:
            within = middle
        else:
            beyond = middle
    for index, maker in enumerate(makers[:within]):  # one at a time: both forms of a giant would be 17 GB
        steps[index] = maker.make(torch.float32).to(device)
    return FittedSteps(steps, within, errors)


@dataclass(frozen=True, slots=True)
class FittedWhole:
    """A network that runs in one precision throughout."""

    network: nn.Module
    exact: bool
    """Whether it is in float32 although another precision was asked for."""
    errors: Mapping[int, float]
    """Stage -> the error it has, or would have, in that precision; empty for float32, or without a probe."""


@torch.inference_mode()
def fit_whole(
    make: Callable[[torch.dtype], nn.Module], dtype: torch.dtype, device: torch.device, sizes: Iterable[HW]
) -> FittedWhole:
    """A network not made of our steps: in float16 if every level of the probe stays within the limit, else
    in float32.

    Args:
        make: the network in a precision, on the CPU.
        dtype: as of `fit_steps`.
        sizes: heights and widths of a probe; the first one that the network takes counts.
    """
    network = make(dtype).to(device)
    if dtype is torch.float32:
        return FittedWhole(network, False, {})
    exact = make(torch.float32).to(device)
    for hw in sizes:
        x = probe_image(hw).to(device)
        try:
            levels = exact(x)
        except SizeRefused:
            continue
        errors = {stage: _error(level, levels[stage]) for stage, level in network(x).items()}
        spoilt = dtype is torch.float16 and max(errors.values()) > _PROBE_LIMIT
        return FittedWhole(exact if spoilt else network, spoilt, errors)
    return FittedWhole(network, False, {})


@torch.inference_mode()
def _exact_maps(makers: Sequence[StepMaker], device: torch.device) -> tuple[list[Tensor], dict[int, Tensor]]:
    """The float32 input of every step, and the raw output of every stage, of the probe image."""
    functions = functions_for(device.type, compiled=False)
    x = probe_image().to(device)
    inputs, levels = [], {}
    for maker in makers:
        inputs.append(x)
        x, _ = maker.make(torch.float32).to(device)(x, functions)
        if maker.ends_stage:
            levels[maker.ends_stage] = x
    return inputs, levels


@torch.inference_mode()
def _errors(
    steps: Sequence[nn.Module], ends: Sequence[int | None], x: Tensor, levels: Mapping[int, Tensor]
) -> dict[int, float]:
    functions = functions_for(x.device.type, compiled=False)
    errors = {}
    for step, stage in zip(steps, ends, strict=True):
        x, _ = step(x, functions)
        if stage:
            errors[stage] = _error(x, levels[stage])
    return errors


def _error(x: Tensor, exact: Tensor) -> float:
    """rms of the difference over rms of the level; infinite where x is not finite."""
    error = float((x.float() - exact).norm() / exact.norm())
    return error if error == error else float("inf")


def probe_image(hw: HW = PROBE_HW) -> Tensor:
    """float32 (1, H, W, 3), normalised: smooth patches with some noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    height, width = hw
    patches = torch.rand(1, 3, height // 16, width // 16, generator=generator) * 4 - 2
    smooth = F.interpolate(patches, size=hw, mode="bilinear").permute(0, 2, 3, 1)
    return smooth + torch.rand(1, height, width, 3, generator=generator) * 0.4 - 0.2


def report(model: str, dtype: torch.dtype, errors: Mapping[int, float], in_float32: str) -> None:
    """Logs what a precision below float32 costs.

    Args:
        errors: by stage, if everything ran in it; none for float32.
        in_float32: what runs in float32 because of them; empty for nothing.
    """
    if not errors:
        return
    by_stage = ", ".join(f"stage {stage} {error:.2%}" for stage, error in sorted(errors.items()))
    name = str(dtype).removeprefix("torch.")
    if in_float32:
        logger.warning(
            "%s in %s would err by %s on these weights, more than %.1f %%: %s in float32",
            model,
            name,
            by_stage,
            LIMIT * 100,
            in_float32,
        )
    else:
        logger.info("%s in %s errs by %s against float32", model, name, by_stage)
