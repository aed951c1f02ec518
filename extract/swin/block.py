"""The constants and weights of one frozen SwinV2 block.

A shifted map needs at most four different sums of position bias and mask, whatever its size
(`extract.swin.windows.split_mask`), so constants do not grow with the image. Where even those are too large
(window 40: 1600 x 1600 a head) they are summed for a few heads at a time, whenever they are needed. On a GPU
with a compiler none are made: kernels look the bias up in its table (`extract.kernels.block_on_map`).

Letters in tensor names: N images, H and W cells, L tokens of a map, C channels; in attention, B windows of
all images, T tokens of a window, H heads, D channels of a head, R offsets between two tokens of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from extract.swin.attention import AttentionWeights, BranchWeights
from extract.swin.attention_gpu import sum_bias
from extract.swin.position_bias import central_offsets, cr_table, offset_index, v2_table
from extract.swin.steps import BlockFunctions, Step
from extract.swin.window_rule import HW, WindowRule, fit_windows
from extract.swin.windows import Run, Split, WindowPlan, split_mask, window_plan

_LARGEST_LOG_SCALE = math.log(100)
"""microsoft/Swin-Transformer models/swin_transformer_v2.py clamps logit_scale at ln(1 / 0.01)."""
KEPT_BYTES = 1 << 30
"""1 GiB of constants kept for all blocks of a backbone; what is beyond is summed again in every batch."""
_LOGITS_BYTES = 2 << 20
"""2 MiB of logits at a time on a CPU, about its second-level cache."""
_SUMMED_BYTES = 256 << 20
"""256 MiB of constants that are not kept at a time."""


class KeepsConstants(Protocol):
    """A block that may keep its constants in memory."""

    keeps_bias: bool

    @property
    def kept_bytes(self) -> int: ...


def keep_constants(blocks: Iterable[KeepsConstants], limit_bytes: int = KEPT_BYTES) -> None:
    """Lets blocks keep their constants, in order, as far as the limit allows. Numbers do not depend on it."""
    for block in blocks:
        block.keeps_bias = block.kept_bytes <= limit_bytes
        limit_bytes -= block.kept_bytes if block.keeps_bias else 0


def constants_bytes(heads: int, window: HW, shift: HW, dtype: torch.dtype) -> int:
    """Of all sums of bias and mask of a block: one, or four where it is shifted."""
    tokens = window[0] * window[1]
    return (4 if any(shift) else 1) * heads * tokens * _row_elements(tokens) * dtype.itemsize


class FoldedBlock(nn.Module):
    """One block with folded constants, a step of `FoldedSwin`; its weights are in no state dict."""

    table_HR: Tensor
    log2_table_HR: Tensor
    """The same times log2(e), for kernels that compute softmax with powers of two."""

    def __init__(self, block: Any, pretrained_window: HW | None, *, dtype: torch.dtype) -> None:
        """From a block of `extract.swin.timm_swin.create_trunk` with its weights on the CPU.

        Args:
            pretrained_window: for the family swinv2; None for swinv2_cr.
            dtype: of matrix products; norms, scales, logits and softmax are float32.
        """
        super().__init__()
        if (act := type(block.mlp.act).__name__) != "GELU":
            raise ValueError(f"act_layer {act}: only gelu can be folded")
        self.heads: int = block.attn.num_heads
        self.window: HW = tuple(block.window_size)
        self.shift: HW = tuple(block.shift_size)
        self.window_rule: WindowRule = block.window_rule
        self.dtype = dtype
        self.keeps_bias = False  # until `keep_constants` has room: trials must not fill the device's memory
        self._kept: dict[tuple[HW, Split, torch.device], Tensor] = {}
        """Of one size of window: that of all maps but those it is cut to."""
        if pretrained_window is None:
            table, qkv_bias = cr_table(block.attn, self.window), block.attn.qkv.bias
        else:
            table, qkv_bias = v2_table(block.attn, self.window, pretrained_window), _qkv_bias(block.attn)
        self._hold("table_HR", table)
        self._hold("log2_table_HR", table * math.log2(math.e))
        self._hold("qkv_weight", block.attn.qkv.weight.to(dtype))
        self._hold("qkv_bias", qkv_bias.to(dtype))
        self._hold("factor_QBHTD", _query_key_factors(block.attn.logit_scale))
        for name, linear in (("proj", block.attn.proj), ("fc1", block.mlp.fc1), ("fc2", block.mlp.fc2)):
            self._hold(f"{name}_weight", linear.weight.to(dtype))
            self._hold(f"{name}_bias", linear.bias.to(dtype))
        for name in ("norm1", "norm2", "norm3"):
            norm = getattr(block, name, None)
            for part in ("weight", "bias"):
                value = getattr(norm, part, None)
                self._hold(f"{name}_{part}", None if value is None else value.float())

    def forward(self, x_NHWC: Tensor, functions: BlockFunctions, low_NHWC: Tensor | None = None) -> Step:
        """The block's output, of a map of any size. Args: low_NHWC: x in the block's dtype."""
        (images, height, width, channels), device = x_NHWC.shape, x_NHWC.device
        plan = self._plan((height, width), device)
        x_NLC = x_NHWC.reshape(images, height * width, channels)
        if functions.on_map is not None and functions.on_map.takes(self):
            low_NLC = None if low_NHWC is None else low_NHWC.view(x_NLC.shape)
            out, low = functions.on_map.run(self, x_NLC, low_NLC, plan)
            return out.view(x_NHWC.shape), low.view(x_NHWC.shape)
        return functions.run(self, x_NLC, plan, functions).view(x_NHWC.shape), None

    def shared_constants(
        self, grid: HW, functions: BlockFunctions, device: torch.device
    ) -> tuple[object, ...]:
        """What `forward` reads for maps of this size besides the block's buffers: the plan; unless kernels
        run it on the map, offsets, masks and sums of both as well."""
        plan = self._plan(grid, device)
        if functions.on_map is not None and functions.on_map.takes(self):
            return (plan,)
        splits, window, sums = [split for *_, split in plan.runs], plan.window, []
        masks = [_mask_on(device, window, self.shift, split) for split in splits if any(split)]
        if self.keeps_bias:
            sums = [self.bias(split, window, sum_bias=functions.sum_bias) for split in splits]
        return plan, _offsets_on(device, window), masks, sums

    def _plan(self, grid: HW, device: torch.device) -> WindowPlan:
        return window_plan(grid, *fit_windows(self.window_rule, grid, self.window, self.shift), device)

    def _hold(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, None if value is None else value.detach(), persistent=False)

    @property
    def attention_weights(self) -> AttentionWeights:
        return AttentionWeights(*(getattr(self, name) for name in AttentionWeights._fields))

    @property
    def branch_weights(self) -> BranchWeights:
        return BranchWeights(*(getattr(self, name) for name in BranchWeights._fields))

    @property
    def kept_bytes(self) -> int:
        """Memory of all constants this block may come to keep; those of cut windows are smaller."""
        return constants_bytes(self.heads, self.window, self.shift, self.dtype)

    def log2_table(self, window: HW) -> Tensor:
        """Position bias by offset in a window of that size, float32 (H, R), contiguous, times log2(e)."""
        return central_offsets(self.log2_table_HR, self.window, window).contiguous()

    def mix(
        self,
        q_BHTD: Tensor,
        k_BHTD: Tensor,
        v_BHTD: Tensor,
        window: HW,
        runs: Sequence[Run],
        functions: BlockFunctions,
    ) -> Tensor:
        """Attention, (B, H, T, D), of as many heads at a time as memory allows.

        Args:
            window: its size in cells.
            runs: windows that share a mask; together all windows, in order.
        """
        size = self._heads_at_a_time(q_BHTD, len(runs))
        parts = []
        for start in range(0, self.heads, size):
            h = slice(start, start + size)
            biases = [
                (slice(first, last), self.bias(split, window, h, functions.sum_bias))
                for first, last, split in runs
            ]
            parts.append(functions.mix(q_BHTD[:, h], k_BHTD[:, h], v_BHTD[:, h], biases))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _heads_at_a_time(self, q_BHTD: Tensor, runs: int) -> int:
        if torch.compiler.is_exporting():  # of any number of windows
            return self.heads
        windows, _, tokens, _ = q_BHTD.shape
        of_a_head = tokens**2 * 4
        if q_BHTD.is_cpu:
            return max(1, _LOGITS_BYTES // (of_a_head * windows))
        return self.heads if self.keeps_bias else max(1, _SUMMED_BYTES // (of_a_head * runs))

    def bias(
        self,
        split: Split,
        window: HW,
        heads: slice = slice(None),
        sum_bias: Callable[..., Tensor] = sum_bias,
    ) -> Tensor:
        """Bias added to a window's logits, (heads, T, T): position bias plus the mask of `split`."""
        if not self.keeps_bias:
            return self._summed(split, window, heads, sum_bias)
        key, kept = (window, split, self.table_HR.device), self._kept
        if key not in kept:
            if any(other != window for other, *_ in list(kept)):
                kept = self._kept = {}  # not cleared: another thread may be reading
            kept[key] = self._summed(split, window, slice(None), sum_bias)
        return kept[key][heads]

    def _summed(self, split: Split, window: HW, heads: slice, sum_bias: Callable[..., Tensor]) -> Tensor:
        device, tokens = self.table_HR.device, window[0] * window[1]
        table_HR = central_offsets(self.table_HR[heads], self.window, window)
        mask = _mask_on(device, window, self.shift, split) if any(split) else None
        summed = sum_bias(table_HR, _offsets_on(device, window), mask, self.dtype)
        if tokens == _row_elements(tokens):
            return summed
        padded = summed.new_empty(len(summed), tokens, _row_elements(tokens))
        return padded[:, :, :tokens].copy_(summed)


@lru_cache(maxsize=8)  # two for each window of a backbone; 20 MB for one of 40
def _offsets_on(device: torch.device, window: HW) -> Tensor:
    return offset_index(window).flatten().to(device)


@lru_cache(maxsize=16)  # three for each window of a backbone; 10 MB for one of 40
def _mask_on(device: torch.device, window: HW, shift: HW, split: Split) -> Tensor:
    return split_mask(window, shift, split).to(device)


def _row_elements(tokens: int) -> int:
    """Elements from row to row of a constant: a multiple of eight, or a fused kernel copies it each time."""
    return -(-tokens // 8) * 8


def _qkv_bias(attention: Any) -> Tensor:
    """SwinV2 has no key bias; one built without any has none at all."""
    if attention.q_bias is None:
        return torch.zeros_like(attention.qkv.weight[:, 0])
    return torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])


def _query_key_factors(logit_scale: Tensor) -> Tensor:
    """float32 (2, 1, heads, 1, 1): what normalised queries and keys are multiplied by."""
    scale = logit_scale.float().flatten().clamp(max=_LARGEST_LOG_SCALE).exp()
    return torch.stack([scale, torch.ones_like(scale)]).view(2, 1, -1, 1, 1)
