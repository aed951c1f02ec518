"""Attention of shifted windows in float64, one query after another, from the definition alone."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Axis(NamedTuple):
    """Of every cell of a padded axis, int64 (cells,)."""

    place: Tensor
    """Where it stands once the map is rolled."""
    window: Tensor
    region: Tensor
    """1 where it was rolled from the beginning to the end."""


def loop_trunk(trunk: nn.Module, rule: str) -> nn.Module:
    """The trunk of `build_trunk` in float64, its attention branches replaced by `attend`."""
    trunk = trunk.double().eval()
    for module in trunk.modules():
        for name in ("_attn", "_shifted_window_attn"):
            if hasattr(module, name):
                setattr(module, name, partial(attend, module, rule))
    return trunk


@torch.inference_mode()
def attend(block: Any, rule: str, x_NHWC: Tensor) -> Tensor:
    """The attention branch of a block, of one image, before its norm."""
    (image,) = x_NHWC
    height, width = image.shape[:2]
    sizes = zip((height, width), block.window_size, block.shift_size, strict=True)
    y, x = (_axis(*size, rule) for size in sizes)
    padded = F.pad(image, (0, 0, 0, len(x.place) - width, 0, len(y.place) - height))
    q, k, v = _queries_keys_values(block.attn, padded)
    out = torch.empty_like(image)
    for row in range(height):
        rows = (y.window == y.window[row]).nonzero()
        for column in range(width):
            columns = (x.window == x.window[column]).nonzero().T
            down = (y.place[row] - y.place[rows]).expand(-1, columns.shape[1])
            across = (x.place[column] - x.place[columns]).expand(len(rows), -1)
            apart = (y.region[rows] != y.region[row]) | (x.region[columns] != x.region[column])
            logits = torch.einsum("hd,yxhd->yxh", q[row, column], k[rows, columns])
            logits = logits + _bias(block.attn, down, across) - 100.0 * apart[..., None]
            probabilities = logits.flatten(0, 1).softmax(0).view_as(logits)
            out[row, column] = torch.einsum("yxh,yxhd->hd", probabilities, v[rows, columns]).flatten()
    return F.linear(out, block.attn.proj.weight, block.attn.proj.bias)[None]


def _axis(size: int, window: int, shift: int, rule: str) -> Axis:
    if rule == "cover":
        window, shift = min(window, size), (0 if size <= window else shift)
    padded = -(-size // window) * window
    place = (torch.arange(padded) - shift) % padded
    return Axis(place, place // window, (place >= padded - shift).long())


def _queries_keys_values(attention: Any, x_HWC: Tensor) -> list[Tensor]:
    """(y, x, heads, channels) each; queries are scaled."""
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    qkv = F.linear(x_HWC, attention.qkv.weight, bias).unflatten(-1, (3, attention.num_heads, -1))
    q, k, v = qkv.unbind(2)
    if not hasattr(attention, "logit_scale"):
        return [q * attention.scale, k, v]
    scale = attention.logit_scale.flatten().clamp(max=math.log(100)).exp()[:, None]
    return [F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1), v]


def _bias(attention: Any, down: Tensor, across: Tensor) -> Tensor:
    """(y, x, heads) of the offsets from keys to the query, each by itself."""
    if hasattr(attention, "relative_position_bias_table"):
        rows, columns = attention.window_size
        index = (down + rows - 1) * (2 * columns - 1) + across + columns - 1
        return attention.relative_position_bias_table[index]
    offsets = torch.stack([down, across], dim=-1).double()
    if hasattr(attention, "meta_mlp"):
        return attention.meta_mlp(offsets.sign() * (offsets.abs() + 1).log())
    extent = torch.tensor([max(size - 1, 1) for size in attention.pretrained_window_size])
    spaced = 8 * offsets / extent
    return 16 * attention.cpb_mlp(spaced.sign() * (spaced.abs() + 1).log2() / 3).sigmoid()
