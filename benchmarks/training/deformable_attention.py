"""Three ways to sum weighted bilinear samples of three levels in plain PyTorch, time and memory side by side.

ours: one grid_sample a level, cells innermost, sampled again in the backward pass.
stacked: transformers' function, one grid_sample a level, the samples stacked and weighted together.
gathered: the four cells around every point of every level, summed by one embedding_bag.

Processor time on a CPU, time on a GPU; medians. The inputs are those of one layer: a batch's cells at 256
channels and 8 heads, 4 points a level.

    python -m benchmarks.training.deformable_attention [--size 512] [--batch 2] [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

# benchmarks/training/mask2former.py would stand for the package of its name.
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from heads.mask2former.deformable_attention import sample_levels

HEADS, POINTS, CHANNELS = 8, 4, 32
Sizes = Sequence[tuple[int, int]]
Read = Callable[[Tensor, Tensor, Tensor, Sizes], Tensor]


def ours(values: Tensor, points: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    return sample_levels(values, points, weights, sizes)


def stacked(values: Tensor, points: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    images = len(values) // HEADS
    read = multi_scale_deformable_attention(
        values.unflatten(0, (images, HEADS)).permute(0, 3, 1, 2),
        list(sizes),
        (points.unflatten(0, (images, HEADS)).permute(0, 5, 1, 2, 3, 4) + 1) / 2,
        weights.unflatten(0, (images, HEADS)).permute(0, 4, 1, 2, 3),
    )
    return read.transpose(1, 2).reshape_as(values)


def gathered(values: Tensor, points: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    groups, channels, cells = values.shape
    indices, shares, start = [], [], 0
    for level, (height, width) in enumerate(sizes):
        x = (points[:, level, :, 0] + 1) * (width / 2) - 0.5
        y = (points[:, level, :, 1] + 1) * (height / 2) - 0.5
        left, top = x.floor(), y.floor()
        for row, near_y in ((top, top + 1 - y), (top + 1, y - top)):
            for column, near_x in ((left, left + 1 - x), (left + 1, x - left)):
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1) + start
                indices.append(cell.long())
                shares.append(near_y * near_x * inside * weights[:, level])
        start += height * width
    first = torch.arange(groups, device=values.device)[:, None, None] * cells
    bags = (torch.cat(indices, 1) + first).transpose(1, 2).flatten(0, 1)
    share = torch.cat(shares, 1).transpose(1, 2).flatten(0, 1)
    rows = values.transpose(1, 2).reshape(-1, channels)
    read = F.embedding_bag(bags, rows, mode="sum", per_sample_weights=share)
    return read.view(groups, cells, channels).transpose(1, 2)


WAYS: dict[str, Read] = {"ours": ours, "stacked": stacked, "gathered": gathered}


def inputs_of(options: argparse.Namespace) -> tuple[list[Tensor], Sizes]:
    """Values, points within a few cells of each cell's own place, and weights that sum to 1."""
    device, groups = torch.device(options.device), options.batch * HEADS
    sizes = [(options.size // stride,) * 2 for stride in (32, 16, 8)]
    cells = sum(height * width for height, width in sizes)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(groups, CHANNELS, cells, generator=generator)
    centre = torch.rand(1, 1, 1, 2, cells, generator=generator) * 2 - 1
    near = torch.randn(groups, len(sizes), POINTS, 2, cells, generator=generator) * (8 / options.size * 2)
    weights = torch.randn(groups, len(sizes) * POINTS, cells, generator=generator).softmax(1)
    tensors = (values, centre + near, weights.view(groups, len(sizes), POINTS, cells))
    return [x.to(device).requires_grad_() for x in tensors], sizes


def timed(way: Read, tensors: list[Tensor], sizes: Sizes, grad: Tensor) -> tuple[float, float]:
    """Seconds forward and backward."""
    for x in tensors:
        x.grad = None
    began = now(grad)
    read = way(*tensors, sizes)
    between = now(grad)
    read.backward(grad)
    return between - began, now(grad) - between


def now(like: Tensor) -> float:
    """Seconds: of the clock when a GPU has done all its work, of the processor on a CPU."""
    if not like.is_cuda:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def kept_bytes(way: Read, tensors: list[Tensor], sizes: Sizes) -> int:
    """Of what autograd holds between the passes, inputs apart."""
    owned = {x.untyped_storage().data_ptr() for x in tensors}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if (at := x.untyped_storage().data_ptr()) not in owned:
            kept[at] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        read = way(*tensors, sizes)
    del read
    return sum(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--size", type=int, default=512, help="side of the views in pixels")
    parser.add_argument("--batch", type=int, default=16 if gpu else 2)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    tensors, sizes = inputs_of(options)
    grad = torch.randn_like(tensors[0])
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    reads = {name: way(*tensors, sizes).detach() for name, way in WAYS.items()}
    for _ in range(options.rounds):
        for name, way in WAYS.items():
            seconds[name].append(timed(way, tensors, sizes, grad))
    where = torch.cuda.get_device_name() if grad.is_cuda else f"cpu, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, {options.size} px, batch {options.batch}\n")
    print(f"{'way':12}{'forward ms':>12}{'backward ms':>13}{'kept MB':>10}{'off by':>10}")
    for name, way in WAYS.items():
        forward, backward = (1e3 * statistics.median(times) for times in zip(*seconds[name], strict=True))
        kept = kept_bytes(way, tensors, sizes) / 1e6
        error = float((reads[name] - reads["stacked"]).abs().max())
        print(f"{name:12}{forward:12.1f}{backward:13.1f}{kept:10.1f}{error:10.1e}")


if __name__ == "__main__":
    main()
