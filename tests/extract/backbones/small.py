"""Small models and random images that the backbone tests share."""

from typing import Any

import torch
from torch import Tensor, nn

from extract.backbones.loading import BackboneCard, build_trunk
from extract.backbones.weights import get_weights

SMALL = {"embed_dim": 32, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
"""Two blocks a stage: one shifted, one not."""
SMALL_GIANT = {"embed_dim": 16, "depths": [2, 2, 7, 2], "num_heads": [1, 2, 4, 8]}
"""Seven blocks in stage 3: the extra norm of every sixth block occurs inside a stage."""


def images(count: int, hw: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """uint8 pixels (count, H, W, 3) and their full sizes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *hw, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.tensor([hw] * count)


def timm_trunk(card: BackboneCard, weights: str = "random:0") -> nn.Module:
    """timm's own modules on the weights, with corrected padding: nothing folded."""
    trunk = build_trunk(card)
    trunk.load_state_dict(dict(get_weights(card, weights, trunk).tensors))
    return trunk.eval()


@torch.inference_mode()
def timm_levels(trunk: Any, x_NHWC: Tensor) -> list[Tensor]:
    """The raw stage outputs, (N, y, x, C); sizes must be multiples of four."""
    maps = trunk.forward_intermediates(x_NHWC.permute(0, 3, 1, 2), intermediates_only=True)
    return [level.permute(0, 2, 3, 1) for level in maps]


def worst_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())
