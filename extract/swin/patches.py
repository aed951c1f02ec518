"""Patch embedding and patch merging of a frozen SwinV2.

Letters in tensor names: N images, H and W pixels or cells, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.swin.attention import NORM_EPS, linear
from extract.swin.steps import BlockFunctions, Step


class PixelNorm(NamedTuple):
    """float32 (3,) each, of values from 0 to 1."""

    mean: Tensor
    std: Tensor


class Patches(nn.Module):
    """4 x 4 pixels to a token: a matrix product on rows of 48 values, and a norm. A step of `FoldedSwin`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, embed: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.size = embed.proj.kernel_size
        kernel = embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        self.register_buffer("weight", kernel.detach().to(dtype), persistent=False)
        self.register_buffer("bias", embed.proj.bias.detach().to(dtype), persistent=False)
        self.norm = _Norm(embed.norm)

    def forward(self, x_NHWC: Tensor, functions: BlockFunctions) -> Step:
        """(N, y, x, C) of normalised pixels; what the patch does not divide is padded with zeros."""
        parts = self.size, self.weight, self.bias, self.norm.weight, self.norm.bias
        return functions.patch(x_NHWC, *parts), None

    def of_pixels(
        self, pixels_NHWC: Tensor, valid_hw: Tensor, norm: PixelNorm, functions: BlockFunctions
    ) -> Step:
        """`forward` of uint8 pixels, 0 after normalisation beyond each image's valid size, int (N, 2)."""
        parts = self.size, self.weight, self.bias, self.norm.weight, self.norm.bias
        return functions.patch_pixels(pixels_NHWC, valid_hw, norm, *parts), None


class Merge(nn.Module):
    """2 x 2 tokens to one; an odd size is padded with a zero row or column. A step of `FoldedSwin`."""

    weight: Tensor
    size = (2, 2)

    def __init__(self, merging: Any, *, norm_first: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.register_buffer("weight", merging.reduction.weight.detach().to(dtype), persistent=False)
        self.norm = _Norm(merging.norm)

    def forward(self, x_NHWC: Tensor, functions: BlockFunctions, low_NHWC: Tensor | None = None) -> Step:
        """(N, y, x, C) to (N, ceil(y / 2), ceil(x / 2), 2C). Args: low_NHWC: x, rounded."""
        parts = self.weight, self.norm.weight, self.norm.bias
        if self.norm_first:
            return functions.norm_and_merge(x_NHWC, *parts), None
        if low_NHWC is not None and low_NHWC.dtype is self.weight.dtype:
            x_NHWC = low_NHWC  # half the bytes, and what it would be rounded to
        return functions.merge_and_norm(x_NHWC, *parts), None


class _Norm(nn.Module):
    """A LayerNorm's parameters in float32."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().float(), persistent=False)
        self.register_buffer("bias", norm.bias.detach().float(), persistent=False)


def patch(
    x_NHWC: Tensor,
    size: tuple[int, int],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """See `Patches.forward`."""
    patches = _cut(x_NHWC, size)
    return _norm(linear(patches.to(weight.dtype), weight, bias), norm_weight, norm_bias)


def patch_pixels(
    pixels_NHWC: Tensor,
    valid_hw: Tensor,
    norm: PixelNorm,
    size: tuple[int, int],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """See `Patches.of_pixels`. Patches are cut before anything else is done: bytes are moved, not floats."""
    patches = _cut(pixels_NHWC, size)
    (rows, columns), (down, across) = size, patches.shape[1:3]
    pixels = rows * columns
    x = patches.float().div(255).sub(norm.mean.repeat(pixels)).div(norm.std.repeat(pixels))
    within = torch.arange(pixels, device=x.device).repeat_interleave(pixels_NHWC.shape[-1])
    row = torch.arange(down, device=x.device)[:, None, None] * rows + within // columns
    column = torch.arange(across, device=x.device)[:, None] * columns + within % columns
    inside = (row < valid_hw[:, 0].view(-1, 1, 1, 1)) & (column < valid_hw[:, 1].view(-1, 1, 1, 1))
    x = torch.where(inside, x, 0.0)
    return _norm(linear(x.to(weight.dtype), weight, bias), norm_weight, norm_bias)


def _cut(x_NHWC: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, y, x, values of a patch), row by row; what the patch does not divide is padded with zeros."""
    (rows, columns), (images, height, width, colours) = size, x_NHWC.shape
    x = x_NHWC
    if height % rows or width % columns:
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    down, across = x.shape[1] // rows, x.shape[2] // columns
    return x.reshape(images, down, rows, across, columns * colours).transpose(2, 3).flatten(3)


def merge_and_norm(x_NHWC: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
    """See `Merge.forward`; of SwinV2."""
    return _norm(linear(_two_by_two(x_NHWC).to(weight.dtype), weight), norm_weight, norm_bias)


def norm_and_merge(x_NHWC: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
    """See `Merge.forward`; of SwinV2-G."""
    return linear(_norm(_two_by_two(x_NHWC), norm_weight, norm_bias).to(weight.dtype), weight).float()


def _two_by_two(x_NHWC: Tensor) -> Tensor:
    images, height, width, channels = x_NHWC.shape
    x = F.pad(x_NHWC, (0, 0, 0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x_NHWC
    x = x.view(images, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3)


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x.float(), weight.shape, weight, bias, NORM_EPS)
