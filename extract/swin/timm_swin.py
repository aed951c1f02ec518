"""timm's Swin trunks with the window and padding rules of the official code.

timm rolls first and pads afterwards, which attends across the image border wherever a map is no multiple of
the window (huggingface/pytorch-image-models#2438; 15-45 % error at 252x332), and fixes window and shift by
the size it was constructed for. Here a map is padded, then rolled, then partitioned, with the mask of the
padded map, as in mmdetection's Swin, transformers and torchvision; window and shift follow from the map at
hand by the trunk's window rule (`extract.swin.window_rule.WindowRule`).

Letters in tensor names: N images, H and W cells, C channels.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from extract.swin.position_bias import central_offsets, offset_index
from extract.swin.timm_import import (
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerV2,
    SwinTransformerV2Block,
    SwinTransformerV2Cr,
    SwinTransformerV2CrBlock,
    WindowAttention,
    timm,
    without_dynamo,
)
from extract.swin.window_rule import HW, WindowRule, fit_windows
from extract.swin.windows import pad_to_windows, partition, reverse, shift_mask

SWIN_FAMILIES: Mapping[type[nn.Module], str] = {
    SwinTransformerV2: "swinv2",
    SwinTransformerV2Cr: "swinv2_cr",
    SwinTransformer: "swin",
}
"""Trunk class -> the family's name in cards; of others see `extract.backbones.levels.family_of`."""
_NOT_BUILT = (
    TypeError,
    ValueError,
    AssertionError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
"""What constructors raise for arguments they cannot take."""


def _padded_then_rolled(block: Any, x_NHWC: Tensor) -> Tensor:
    """The attention branch of a Swin block, before its norm; any H and W."""
    height, width = x_NHWC.shape[1:3]
    window, shift = fit_windows(block.window_rule, (height, width), block.window_size, block.shift_size)
    padded = pad_to_windows(x_NHWC, window)
    if any(shift):
        padded = torch.roll(padded, (-shift[0], -shift[1]), (1, 2))
    grid = (padded.shape[1], padded.shape[2])
    mask = shift_mask(grid, window, shift, device=padded.device, dtype=padded.dtype)
    windows = _attention_of(block.attn, window)(partition(padded, window), mask=mask)
    merged = reverse(windows, window, grid)
    if any(shift):
        merged = torch.roll(merged, tuple(shift), (1, 2))
    return merged[:, :height, :width]


def _attention_of(attention: Any, window: HW) -> Any:
    """timm's attention module for windows cut to `window`, with the weights of the module itself.

    Each pair of tokens keeps the position bias of its offset. A copy, since other threads may use the module
    for maps of another size.
    """
    full: HW = tuple(attention.window_size)
    if window == full:
        return attention
    cut = copy.copy(attention)
    cut._buffers, cut._parameters = dict(attention._buffers), dict(attention._parameters)
    if not isinstance(attention, WindowAttention):
        cut.set_window_size(window)  # computes the bias from coordinates
        return cut
    table_RH = cut._parameters.pop("relative_position_bias_table")  # where timm would interpolate
    cut.relative_position_bias_table = central_offsets(table_RH.T, full, window).T
    cut._buffers["relative_position_index"] = offset_index(window).to(table_RH.device)
    cut.window_size, cut.window_area = window, math.prod(window)
    return cut


class _PadFirstV1Block(SwinTransformerBlock):  # type: ignore[misc]
    window_rule: WindowRule = "partition"
    _attn = _padded_then_rolled


class _PadFirstV2Block(SwinTransformerV2Block):  # type: ignore[misc]
    window_rule: WindowRule = "partition"
    _attn = _padded_then_rolled


class _PadFirstCrBlock(SwinTransformerV2CrBlock):  # type: ignore[misc]
    window_rule: WindowRule = "partition"
    _shifted_window_attn = _padded_then_rolled


_PAD_FIRST: Mapping[type[nn.Module], type[nn.Module]] = {
    SwinTransformerBlock: _PadFirstV1Block,
    SwinTransformerV2Block: _PadFirstV2Block,
    SwinTransformerV2CrBlock: _PadFirstCrBlock,
}


def correct_attention(trunk: nn.Module) -> nn.Module:
    """`trunk` itself, each of its Swin blocks turned into one that pads before it rolls."""
    for module in trunk.modules():
        if type(module) in _PAD_FIRST:
            module.__class__ = _PAD_FIRST[type(module)]
    return trunk


def set_window_rule(trunk: nn.Module, rule: WindowRule) -> None:
    """Makes every Swin block of a trunk of `create_trunk` follow a rule from now on."""
    blocks: list[Any] = [m for m in trunk.modules() if isinstance(m, tuple(_PAD_FIRST.values()))]
    for block in blocks:
        block.window_rule = rule


def create_trunk(
    timm_id: str, arguments: Mapping[str, Any], *, window_rule: WindowRule = "partition", **more: Any
) -> nn.Module:
    """A timm model without weights, in training mode, on the current default device.

    Args:
        arguments: of timm's constructor, JSON values.
        window_rule: of Swin blocks; nothing to other models.
        more: further arguments of the constructor.

    Raises:
        ValueError: timm knows no such model, or it cannot be built with these arguments.
    """
    if ":" in timm_id or "/" in timm_id:
        raise ValueError(
            f"timm:{timm_id}: expected the name of one of timm's models, such as timm:resnet50.a1_in1k; its "
            f"weights can come from a file, by --weights"
        )
    settings = {key: _tuples(value) for key, value in arguments.items()}
    try:
        trunk: nn.Module = timm.create_model(timm_id, pretrained=False, **settings, **more)
    except _NOT_BUILT as error:
        if "Unknown model" in str(error) or "pretrained tag" in str(error):
            raise ValueError(_no_such_model(timm_id)) from error
        given = json.dumps(dict(arguments))
        raise ValueError(
            f"{timm_id} cannot be built with the model arguments {given}: {type(error).__name__}: {error}"
        ) from error
    set_window_rule(correct_attention(trunk), window_rule)
    return trunk


def _no_such_model(timm_id: str) -> str:
    name, _, tag = timm_id.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag and timm.is_model(name):
        return f"timm {timm.__version__} has no tag {tag!r} of {name}; available: {', '.join(tags) or 'none'}"
    near = difflib.get_close_matches(name, timm.list_models(), n=8, cutoff=0.5)
    hint = f"; similar: {', '.join(near)}" if near else ""
    return f"timm {timm.__version__} has no model {timm_id!r}{hint}"


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples timm expects."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


_DRAWS = frozenset({"uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"})
"""In-place functions of initial values."""


class _WithoutValues(TorchFunctionMode):
    """Leaves out what only sets values of tensors that have none: half the time of a trunk."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        changed = args[0] if args else named.get("tensor")
        if getattr(function, "__name__", "") in _DRAWS and isinstance(changed, Tensor) and changed.is_meta:
            return changed
        return function(*args, **named)


def meta_trunk(
    timm_id: str, arguments: Mapping[str, Any], *, window_rule: WindowRule = "partition"
) -> nn.Module:
    """`create_trunk` without a classifier on the meta device: names and sizes, without memory or time."""
    with without_dynamo(), torch.device("meta"), _WithoutValues():
        return create_trunk(timm_id, arguments, window_rule=window_rule, num_classes=0)


@lru_cache(maxsize=64)
def _probe_once(timm_id: str, arguments_json: str) -> nn.Module:
    return meta_trunk(timm_id, json.loads(arguments_json))


def probe(timm_id: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The model on the meta device: its structure and sizes without memory or time."""
    return _probe_once(timm_id, json.dumps(dict(arguments), sort_keys=True))


def stages_of(trunk: Any) -> list[Any]:
    """The four stages of a Swin trunk; each has `downsample` and `blocks`."""
    return list(trunk.stages if isinstance(trunk, SwinTransformerV2Cr) else trunk.layers)


def windows_of(trunk: nn.Module) -> tuple[tuple[int, int], ...]:
    """Window height and width of each stage, as the trunk was constructed."""
    return tuple(tuple(stage.blocks[0].window_size) for stage in stages_of(trunk))


def pretrained_windows_of(trunk: nn.Module) -> tuple[tuple[int, int], ...] | None:
    """The windows that position coordinates are relative to, where a SwinV2 model states them."""
    if not isinstance(trunk, SwinTransformerV2):
        return None
    sizes = tuple(tuple(stage.blocks[0].attn.pretrained_window_size) for stage in stages_of(trunk))
    return sizes if any(math.prod(size) for size in sizes) else None
