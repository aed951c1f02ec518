"""AdamW over a head's parameters, some of them without weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pipelines.config import OptimizerConfig


def build_optimizer(head: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with no weight decay on norm layers, as `norm: decay_mult=0` of mmseg's Swin configurations, none
    on embeddings, as WEIGHT_DECAY_EMBED = 0 of Mask2Former, and none where a layer says so itself.

    [mmseg configs/swin/upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K.py,
    Mask2Former train_net.py]
    """
    exempt = {id(parameter) for parameter in undecayed_parameters(head)}
    free = [parameter for parameter in head.parameters() if id(parameter) in exempt]
    decayed = [parameter for parameter in head.parameters() if id(parameter) not in exempt]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,  # twice as fast on a CPU too
    )


def undecayed_parameters(head: nn.Module) -> Iterator[nn.Parameter]:
    """Those of Embedding, of the layers named as norms (LayerNorm, GroupNorm, a head's own ...Norm) and of
    the layers marked `without_weight_decay`; of each its own, none of a layer inside it."""
    for module in head.modules():
        exempt = "Norm" in type(module).__name__ or isinstance(module, nn.Embedding)
        if exempt or getattr(module, "without_weight_decay", False):
            yield from module.parameters(recurse=False)
