"""A frozen backbone: uint8 pixels in, raw stage outputs out, the same bytes for the same row on a CPU.

Letters in tensor names: N images, H and W pixels or cells, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.cards import BackboneCard
from extract.trunks import create_trunk
from extract.weights import Weights

PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class FrozenBackbone(nn.Module):
    """A backbone that never changes: eval, no gradients, no drop path, levels beyond need not computed."""

    mean: Tensor
    std: Tensor

    def __init__(self, card: BackboneCard, weights: Weights, *, device: torch.device, precision: str) -> None:
        super().__init__()
        self.card = card
        self.pyramid = card.pyramid
        self.weights_sha256 = weights.sha256
        self.precision = precision
        self.device = device
        trunk: Any = create_trunk(card.timm_id, card.constructor_args, num_classes=0)
        trunk.load_state_dict(dict(weights.tensors))
        self.trunk: Any = trunk.float().to(device)
        self.register_buffer("mean", torch.tensor(card.mean, device=device), persistent=False)
        self.register_buffer("std", torch.tensor(card.std, device=device), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def identity(self) -> dict[str, Any]:
        """What decides the features' numbers, as JSON values."""
        return self.card.identity(weights_sha256=self.weights_sha256, precision=self.precision)

    @torch.inference_mode()
    def forward(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> dict[str, Tensor]:
        """The wanted levels of a batch.

        Args:
            pixels_NHWC: uint8 RGB (N, H, W, 3), padded at the bottom and the right; what the padding holds
                does not matter: it becomes 0 after normalisation.
            valid_hw: int (N, 2), height and width of each image in pixels without padding.

        Returns:
            Level name -> (N, y, x, C) raw stage output on the backbone's device, in pyramid order.
        """
        pixels = pixels_NHWC.to(self.device, non_blocking=True)
        valid = torch.as_tensor(valid_hw).to(self.device, non_blocking=True)
        if self.device.type != "cpu":
            return self._levels(self.normalise(pixels, valid))
        # One image at a time: matrix products of several images round differently with their number, and
        # then a row's bytes would depend on its companions.
        each = [self._levels(self.normalise(pixels[i : i + 1], valid[i : i + 1])) for i in range(len(pixels))]
        return {name: torch.cat([levels[name] for levels in each]) for name in self.pyramid.names}

    def normalise(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> Tensor:
        """float32 (N, H, W, 3): (x / 255 - mean) / std, and 0 beyond each image's valid size."""
        height, width = pixels_NHWC.shape[1:3]
        x = (pixels_NHWC.float() / 255 - self.mean) / self.std
        rows = torch.arange(height, device=x.device) < valid_hw[:, 0, None]
        columns = torch.arange(width, device=x.device) < valid_hw[:, 1, None]
        inside = rows[:, :, None] & columns[:, None, :]
        return torch.where(inside[..., None], x, 0.0)

    def _levels(self, x_NHWC: Tensor) -> dict[str, Tensor]:
        height, width = x_NHWC.shape[1:3]
        x = F.pad(x_NHWC, (0, 0, 0, -width % 4, 0, -height % 4)).permute(0, 3, 1, 2).contiguous()
        stages = sorted({level.stage - 1 for level in self.pyramid})
        maps = self.trunk.forward_intermediates(
            x, indices=stages, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        by_stage = dict(zip(stages, maps, strict=True))
        levels = {}
        for level in self.pyramid:
            levels[level.name] = by_stage[level.stage - 1].permute(0, 2, 3, 1)
            if level.name == "p5n":
                levels["p5n"] = self.trunk.norm(levels["p5n"])
        return levels
