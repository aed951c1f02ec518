"""The optimizer over a head's parameters, some of them without weight decay."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from heads.necks.input_norm import ChannelNorm
from pipelines.config import OptimizerConfig
from pipelines.errors import UsageError
from pipelines.training.optimisation.lars import Lars

logger = logging.getLogger(__name__)


def build_optimizer(
    head: nn.Module, config: OptimizerConfig, begun: Sequence[int] | None = None
) -> torch.optim.Optimizer:
    """AdamW, SGD or LARS, with no weight decay on `undecayed_parameters`.

    Args:
        begun: parameters with weight decay and without, where any, of the checkpoint of a run to resume.
            Runs of earlier versions left every norm without; they keep it.

    Raises UsageError where no rule groups the parameters so.
    """
    groups = _groups(head)
    if begun is not None and _sizes(groups) != tuple(begun):
        expected, groups = _sizes(groups), _groups(head, decays_norms=False)
        if _sizes(groups) != tuple(begun):
            raise UsageError(
                f"the checkpoint's optimizer has groups of {', '.join(map(str, begun))} parameters (with and "
                f"without weight decay), expected {', '.join(map(str, expected))}: it is of another head or "
                "version; start a new run, or resume with the versions that run.json names"
            )
        logger.info("the run began without weight decay on any norm and keeps it so")
    if config.name == "lars":
        return Lars(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            trust=config.trust,
            weight_decay=config.weight_decay,
        )
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,  # twice as fast on a CPU too
    )


def undecayed_parameters(head: nn.Module, *, decays_norms: bool | None = None) -> Iterator[nn.Parameter]:
    """Parameters without weight decay: embeddings, norms, and layers marked `without_weight_decay`; of each
    its own, none of a layer inside it.

    Embeddings and all norms as Mask2Former (train_net.py: WEIGHT_DECAY_EMBED and WEIGHT_DECAY_NORM are 0).
    Heads with `Head.decays_norms` follow mmdet and mmseg, whose `norm: decay_mult=0` matches names of
    parameters (mmcv@0627873 mmcv/runner/optimizer/default_constructor.py): those of the backbone's output
    norms, here the input norms, but not `bn` and `gn` inside necks and heads.

    Args:
        decays_norms: in place of the head's own rule.
    """
    if decays_norms is None:
        decays_norms = getattr(head, "decays_norms", False)
    for module in head.modules():
        is_norm = "Norm" in type(module).__name__  # LayerNorm, GroupNorm, a head's own ...Norm
        exempt = is_norm and (not decays_norms or isinstance(module, ChannelNorm))
        if exempt or isinstance(module, nn.Embedding) or getattr(module, "without_weight_decay", False):
            yield from module.parameters(recurse=False)


def _groups(head: nn.Module, *, decays_norms: bool | None = None) -> list[dict[str, Any]]:
    exempt = {id(parameter) for parameter in undecayed_parameters(head, decays_norms=decays_norms)}
    free = [parameter for parameter in head.parameters() if id(parameter) in exempt]
    decayed = [parameter for parameter in head.parameters() if id(parameter) not in exempt]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _sizes(groups: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(len(group["params"]) for group in groups)
