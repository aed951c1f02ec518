"""Loads frozen backbones by name.

A card (`backbone_card`) describes a backbone without building it; `load_backbone` builds it, frozen;
`build_trunk` builds the same network to be trained.
"""

from __future__ import annotations

import torch
from torch import nn

from extract.backbones.compiler import compiles
from extract.backbones.frozen import PRECISIONS, BackboneTooLarge, FrozenBackbone
from extract.backbones.registry import (
    BACKBONES,
    REVISIONS,
    BackboneCard,
    backbone_card,
    card_of_identity,
)
from extract.backbones.weights import WeightsMismatch, WeightsUnavailable, get_weights
from extract.swin.timm_swin import create_trunk, probe

__all__ = [
    "BACKBONES",
    "REVISIONS",
    "BackboneCard",
    "BackboneTooLarge",
    "FrozenBackbone",
    "WeightsMismatch",
    "WeightsUnavailable",
    "backbone_card",
    "build_trunk",
    "card_of_identity",
    "load_backbone",
    "weights_sha256",
]


def build_trunk(card: BackboneCard, num_classes: int = 0) -> nn.Module:
    """timm's model of a card to train: its own initial weights, corrected attention, no drop path.

    Its state dict, without the classifier (`head.`), is what `load_backbone` loads from a safetensors file.

    Args:
        num_classes: outputs of the classifier; 0: none, the model returns pooled features.
    """
    return create_trunk(
        card.timm_id, card.constructor_args, window_rule=card.window_rule, num_classes=num_classes
    )


def weights_sha256(card: BackboneCard, weights: str = "timm") -> str:
    """The digest of `weights` in a store's identity, without building the backbone.

    Raises WeightsUnavailable and WeightsMismatch as `load_backbone` does.
    """
    return get_weights(card, weights, probe(card.timm_id, card.constructor_args)).sha256


def default_precision(device: torch.device | str) -> str:
    """fp16 on a GPU, where logits and softmax still accumulate in fp32; fp32 on a CPU."""
    return "fp32" if torch.device(device).type == "cpu" else "fp16"


def load_backbone(
    card: BackboneCard,
    weights: str = "timm",
    *,
    device: torch.device | str = "cpu",
    precision: str | None = None,
    compiled: bool | None = None,
) -> FrozenBackbone:
    """A backbone with its weights, frozen, on its device.

    Args:
        weights: `timm` (the hub's; for swinv2-nano the bundled file), a path (see
            `extract.backbones.weights.get_weights`), or `random:SEED`, which warns.
        precision: fp32, fp16 or bf16 of the forward pass; None: `default_precision`.
        compiled: run SwinV2 through torch.compile and, on a GPU, CUDA graphs; compiling takes a minute. None:
            on a GPU where it works. It changes the last bits of features and is not part of the identity, so
            fill one store either way, not both.

    Raises:
        WeightsUnavailable: the weights cannot be found or downloaded; says what to pass.
        WeightsMismatch: names or shapes differ from the model's; lists them.
        BackboneTooLarge: it does not fit the device's free memory.
        ValueError: no such precision.
    """
    device = torch.device(device)
    compiled = compiles(device) if compiled is None else compiled
    precision = precision or default_precision(device)
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}; available: {', '.join(PRECISIONS)}")
    trunk = probe(card.timm_id, card.constructor_args)
    found = get_weights(card, weights, trunk)
    return FrozenBackbone(card, found, device=device, precision=precision, compiled=compiled)
