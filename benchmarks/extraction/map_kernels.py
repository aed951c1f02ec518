"""The kernels of `extract.kernels.block_on_map`, each beside what torch makes of the same, with errors
against float64.

Times are medians, on a GPU. On a CPU small cases run in Triton's interpreter: only the errors mean something.

    python -m benchmarks.extraction.map_kernels
    TRITON_INTERPRET=1 python -m benchmarks.extraction.map_kernels --device cpu
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rivals import timed
from extract.backbones.device_functions import functions_for
from extract.kernels.add_normed import add_normed
from extract.kernels.linear_gelu import linear_gelu
from extract.kernels.window_attention import attend
from extract.swin import attention_gpu as fused_attention
from extract.swin.attention import AttentionWeights
from extract.swin.patches import PixelNorm, patch
from extract.swin.position_bias import offset_index
from extract.swin.windows import split_mask, window_plan

CALLS = 30


class Case(NamedTuple):
    name: str
    ours: Callable[[], Tensor]
    torchs: Callable[[], object]
    exact: Callable[[], Tensor] | None
    """In float64; None where that takes too much memory."""


def _low(device: torch.device) -> torch.dtype:
    """The kernels' precision; in the interpreter, one without rounding to speak of."""
    return torch.float16 if device.type == "cuda" else torch.float32


def attention(
    name: str, images: int, side: int, window: int, heads: int, shift: int, device: torch.device
) -> Case:
    plan = window_plan((side, side), (window, window), (shift, shift), device)
    dtype = _low(device)
    channels, tokens = heads * 32, plan.tokens
    x = torch.randn(images, side * side, channels, device=device)
    table = torch.rand(heads, (2 * window - 1) ** 2, device=device) * 16
    weights = AttentionWeights(
        qkv_weight=torch.randn(3 * channels, channels, device=device).to(dtype) / channels**0.5,
        qkv_bias=torch.randn(3 * channels, device=device).to(dtype),
        factor_QBHTD=torch.tensor([10.0, 1.0], device=device)
        .repeat_interleave(heads)
        .view(2, 1, heads, 1, 1),
    )
    qkv = F.linear(x.to(dtype), weights.qkv_weight, weights.qkv_bias)
    bias = table.index_select(1, offset_index((window, window)).flatten().to(device)).view(-1, tokens, tokens)
    splits = [
        (slice(first * images, last * images), split_mask((window, window), (shift, shift), split).to(device))
        for first, last, split in plan.runs
    ]
    summed = [(some, (bias + mask).to(dtype)) for some, mask in splits]
    log2_table = table * math.log2(math.e)
    q, k, v = fused_attention.enter(F.pad(x, (0, 0, 0, 1)), plan.gather, tokens, weights)

    def exact() -> Tensor:
        padded = torch.cat([qkv, weights.qkv_bias.expand(images, 1, -1)], 1).double()
        parts = padded[:, plan.gather].view(images, -1, tokens, 3, heads, 32).permute(3, 1, 0, 4, 2, 5)
        queries, keys, values = parts.flatten(1, 2)
        queries = F.normalize(queries, dim=-1) * weights.factor_QBHTD[0].double()
        logits = queries @ F.normalize(keys, dim=-1).transpose(-1, -2)
        for some, mask in splits:
            logits[some] += (bias + mask).double()
        out = (logits.softmax(-1) @ values).transpose(1, 2).reshape(-1, images, tokens, channels)
        return out.transpose(0, 1).flatten(1, 2)[:, plan.scatter]

    return Case(
        f"attention, {name}",
        lambda: attend(qkv, log2_table, (window, window), plan, weights),
        lambda: fused_attention.mix(q, k, v, summed),
        exact if images * plan.windows * heads * tokens**2 < 1 << 28 else None,
    )


def product(rows: int, depth: int, device: torch.device) -> Case:
    dtype = _low(device)
    x = torch.randn(rows, depth, device=device).to(dtype)
    weight = (torch.randn(4 * depth, depth, device=device) / depth**0.5).to(dtype)
    bias = torch.randn(4 * depth, device=device).to(dtype)
    return Case(
        f"product with GELU, {rows} x {depth} to {4 * depth}",
        lambda: linear_gelu(x, weight, bias),
        lambda: F.gelu(F.linear(x, weight, bias)),
        lambda: F.gelu(F.linear(x.double(), weight.double(), bias.double())),
    )


def residual(rows: int, channels: int, device: torch.device) -> Case:
    dtype = _low(device)
    x, branch = torch.randn(2, rows, channels, device=device)
    branch, weight, bias = branch.to(dtype), *torch.randn(2, channels, device=device)
    shape = (channels,)
    return Case(
        f"residual sum with its norm, {rows} x {channels}",
        lambda: add_normed(x, branch, weight, bias)[0],
        lambda: (x + F.layer_norm(branch.float(), shape, weight, bias)).to(dtype),
        lambda: x + F.layer_norm(branch.double(), shape, weight.double(), bias.double()),
    )


def patches(images: int, side: int, device: torch.device) -> Case:
    """With torch's compiler, as an extraction on a GPU."""
    dtype = _low(device)
    functions = functions_for("cuda", compiled=device.type == "cuda")
    pixels = torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8, device=device)
    valid = torch.full((images, 2), side, device=device)
    norm = PixelNorm(*(torch.rand(2, 3, device=device) + 0.2))
    weight, bias = torch.randn(96, 48, device=device).to(dtype), torch.randn(96, device=device).to(dtype)
    rest = ((4, 4), weight, bias, *torch.randn(2, 96, device=device))

    def floats() -> Tensor:
        return (pixels.float() / 255 - norm.mean) / norm.std

    return Case(
        f"bytes to patches, {images} images of {side} px",
        lambda: functions.patch_pixels(pixels, valid, norm, *rest),
        lambda: functions.patch(floats(), *rest),
        lambda: patch(floats(), (4, 4), weight.float(), bias.float(), *rest[3:]),
    )


def cases(device: torch.device) -> Iterator[Case]:
    if device.type == "cpu":
        yield attention("windows of 8", 2, 12, 8, 2, 4, device)
        yield attention("windows of 17", 1, 17, 17, 1, 0, device)
        yield product(100, 96, device)
        yield residual(100, 96, device)
        yield patches(2, 32, device)
        return
    yield attention("T at 512 px, stage 1", 32, 128, 8, 3, 4, device)
    yield attention("T at 512 px, stage 3", 32, 32, 8, 12, 4, device)
    yield attention("B at 512 px, stage 1", 32, 128, 12, 4, 6, device)
    yield attention("B at 512 px, stage 3", 32, 32, 12, 16, 6, device)
    yield attention("B at 1024 px, stage 3", 8, 64, 16, 16, 8, device)
    yield attention("G at 640 px, stage 1", 1, 160, 40, 16, 20, device)
    yield attention("G at 640 px, stage 3", 1, 40, 40, 64, 0, device)
    for rows, depth in [(524288, 96), (524288, 128), (32768, 512), (8192, 1024), (1600, 2048), (400, 4096)]:
        yield product(rows, depth, device)
    for rows, channels in [(524288, 96), (524288, 128), (32768, 512), (1600, 2048)]:
        yield residual(rows, channels, device)
    yield patches(32, 512, device)


def median_us(function: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        timed(function, device)
    return statistics.median(timed(function, device)[0] for _ in range(CALLS)) * 1e6


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)
    torch.manual_seed(0)
    print(
        f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}"
    )
    print(f"{'microseconds':52}{'ours':>10}{'torch':>10}{'error':>12}")
    for case in cases(device):
        ours, torchs = (median_us(function, device) for function in (case.ours, case.torchs))
        told = "" if case.exact is None else f"{error(case.ours(), case.exact()):12.1e}"
        print(f"{case.name:52}{ours:10.0f}{torchs:10.0f}{told}", flush=True)


if __name__ == "__main__":
    main()
