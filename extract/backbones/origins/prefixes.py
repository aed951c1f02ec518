"""Prefixes of training scripts around a network's names, and parts of checkpoints that are no network."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from torch import Tensor

_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "base_encoder.", "target_encoder.")
"""Wrappers of data-parallel training, of Lightning, of DINO and EsViT, of SimMIM, of MoCo-v3 and of MSN."""
_MOMENTUM = re.compile(r"^(module\.)?(momentum_encoder|predictor)\.")
"""MoCo-v3's other networks, beside `base_encoder`."""
_PRETRAINING = re.compile(
    r"^(mask_token|masked_embed|decoder(_\w+)?|predictor|lm_head|(dino_|ibot_)?head|head_dist|head_dense|fc"
    r"|prototypes|mask_downscaling|text_model|text_projection|visual_projection|logit_scale|logit_bias"
    r"|prompt_encoder|mask_decoder|image_encoder\.neck)(\.|$)|relative_position_index"
)
"""Decoders, projectors, mask tokens, classifiers: of DINO, MAE, iBOT, MSN, BEiT, SimMIM, DeiT, SAM, CLIP."""


def unwrapped(name: str, known: Container[str]) -> str:
    """The name without its wrappers; one that the model has keeps them.

    >>> unwrapped("module.backbone.norm.weight", {"norm.weight"})
    'norm.weight'
    """
    while name not in known and (prefix := next((p for p in _PREFIXES if name.startswith(p)), "")):
        name = name.removeprefix(prefix)
    return name


def all_unwrapped(tensors: Mapping[str, Tensor], known: Container[str]) -> dict[str, Tensor]:
    """Tensors under unwrapped names. Raises ValueError where two would have one name."""
    if any(re.match(r"(module\.)?base_encoder\.", name) for name in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if not _MOMENTUM.match(name)}
    found = {unwrapped(name, known): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise ValueError(
            "two names of the checkpoint are the same tensor of the model once prefixes are dropped"
        )
    return found


def without_pretraining(tensors: Mapping[str, Tensor], known: Container[str]) -> dict[str, Tensor]:
    """Without what served pretraining or classification alone; a name that the model has stays."""
    return {
        name: tensor for name, tensor in tensors.items() if name in known or not _PRETRAINING.search(name)
    }
