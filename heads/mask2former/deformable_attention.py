"""Multi-scale deformable attention in plain PyTorch (Mask2Former:modeling/pixel_decoder/ops).

Dims: N images, L cells of all levels one after the other, H attention heads, V levels, P points, C channels.
Everything between the linear layers keeps the cells innermost: the projections come out of the matrix product
in that order, so that samplers read grids and maps as views, without one transposed copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from heads.contract import SizeYX


@dataclass(frozen=True, kw_only=True, slots=True)
class CellGrid:
    """Coordinates of the cells of some levels: computed once, used by every layer."""

    sizes: tuple[SizeYX, ...]
    """y and x cells of each level."""
    centres_2L: Tensor
    """x and y of each cell's centre, -1 and 1 being a map's outer edges."""
    cell_V121: Tensor
    """x and y extent of a level's cell in the same unit."""

    @classmethod
    def of(cls, sizes: Sequence[SizeYX], like: Tensor) -> CellGrid:
        """The grid of levels of these sizes, on the device and in the dtype of `like`."""
        centres = []
        for height, width in sizes:
            y, x = (_centres(cells, like) for cells in (height, width))
            centres.append(torch.stack([x.repeat(height), y.repeat_interleave(width)]))
        cells = [[2 / width, 2 / height] for height, width in sizes]
        cell_V2 = torch.tensor(cells, dtype=like.dtype, device=like.device)
        return cls(sizes=tuple(sizes), centres_2L=torch.cat(centres, 1), cell_V121=cell_V2[:, None, :, None])


class DeformableAttention(nn.Module):
    """Each cell reads a few points around it on every level: a weighted sum of bilinear samples.

    Where to read and with which weight are linear in the query, the values linear in the cells. Points
    outside a map read zeros. Under autocast the matrix products take the low precision; points, weights and
    sums stay in that of the queries.
    """

    def __init__(self, width: int, levels: int, *, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.values = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self._initialise()

    def forward(self, query_NLC: Tensor, cells_NLC: Tensor, grid: CellGrid) -> Tensor:
        """Samples `cells` at points that the queries choose.

        Args:
            query_NLC: the cells with their position codes.
            cells_NLC: the cells, level after level, each in row order.
            grid: coordinates of the cells.
        Returns:
            (N, L, C), in low precision under autocast.
        """
        images, cells, _ = cells_NLC.shape
        shape = (images, self.heads, self.levels, self.points)
        offsets_NHVP2L = _project(self.offsets, query_NLC).view(*shape, 2, cells)
        weights_NHVPL = _project(self.weights, query_NLC).to(query_NLC.dtype).view(*shape, cells)
        weights_NHVPL = weights_NHVPL.flatten(2, 3).softmax(2).view(*shape, cells)
        values_NCL = _project(self.values, cells_NLC).to(query_NLC.dtype)
        points_NHVP2L = torch.addcmul(grid.centres_2L, offsets_NHVP2L.to(query_NLC.dtype), grid.cell_V121)
        read_GCL = sample_levels(
            values_NCL.view(images * self.heads, -1, cells),
            points_NHVP2L.flatten(0, 1),
            weights_NHVPL.flatten(0, 1),
            grid.sizes,
        )
        y_NLC: Tensor = self.output(read_GCL.view(images, -1, cells).transpose(1, 2))
        return y_NLC

    def _initialise(self) -> None:
        """As the reference: point p of a head is p cells away, in one of eight directions."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)[:, None]
        bias_HVP2 = (direction[:, None, None] * distance).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(bias_HVP2.flatten())
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        for linear in (self.values, self.output):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (self.weights, self.values, self.output):
            nn.init.zeros_(linear.bias)


def sample_levels(
    values_GCL: Tensor, grid_GVP2L: Tensor, weights_GVPL: Tensor, sizes: Sequence[SizeYX]
) -> Tensor:
    """Weighted sums (G, C, L) over levels and points of bilinear samples; G is an image and a head.

    Args:
        values_GCL: the sampled maps, level after level.
        grid_GVP2L: x and y of each point, -1 and 1 being a map's outer edges (align_corners False).
        weights_GVPL: weight of each point.
        sizes: y and x cells of each level.
    """
    reads = []
    start = 0
    for level, (height, width) in enumerate(sizes):
        map_GCYX = values_GCL[..., start : start + height * width].view(*values_GCL.shape[:2], height, width)
        grid_GPL2 = grid_GVP2L[:, level].transpose(2, 3)
        reads.append(_WeightedSamples.apply(map_GCYX, grid_GPL2, weights_GVPL[:, level]))
        start += height * width
    total: Tensor = sum(reads[1:], start=reads[0])
    return total


class _WeightedSamples(torch.autograd.Function):
    """Samples one level and sums over the points; samples again in the backward pass.

    The samples of three levels are twelve times as large as the layer's input: kept for the backward pass, as
    autograd would, they are most of a pixel decoder's memory, and sampling again is a tenth of its time.
    """

    @staticmethod
    def forward(ctx: Any, map_GCYX: Tensor, grid_GPL2: Tensor, weights_GPL: Tensor) -> Tensor:
        ctx.save_for_backward(map_GCYX, grid_GPL2, weights_GPL)
        return _sample(map_GCYX, grid_GPL2).mul_(weights_GPL[:, None]).sum(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_GCL: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        map_GCYX, grid_GPL2, weights_GPL = ctx.saved_tensors
        grad_GC1L = grad_GCL[:, :, None]
        samples_GCPL = _sample(map_GCYX, grid_GPL2)
        grad_weights_GPL = (samples_GCPL * grad_GC1L).sum(1)
        grad_samples_GCPL = torch.mul(grad_GC1L, weights_GPL[:, None], out=samples_GCPL)
        grad_map_GCYX, grad_grid_GPL2 = torch.ops.aten.grid_sampler_2d_backward(
            grad_samples_GCPL, map_GCYX, grid_GPL2, 0, 0, False, list(ctx.needs_input_grad[:2])
        )
        return grad_map_GCYX, grad_grid_GPL2, grad_weights_GPL


def _sample(map_GCYX: Tensor, grid_GPL2: Tensor) -> Tensor:
    """Bilinear, zeros outside, align_corners False: (G, C, P, L)."""
    samples_GCPL: Tensor = torch.ops.aten.grid_sampler_2d(map_GCYX, grid_GPL2, 0, 0, False)
    return samples_GCPL


def _project(linear: nn.Linear, x_NLC: Tensor) -> Tensor:
    """linear(x) as (N, outputs, L), contiguous."""
    weight_NOC = linear.weight.expand(x_NLC.shape[0], -1, -1)
    return torch.baddbmm(linear.bias[:, None], weight_NOC, x_NLC.transpose(1, 2))


def _centres(cells: int, like: Tensor) -> Tensor:
    index = torch.arange(cells, dtype=like.dtype, device=like.device)
    return (2 * index + 1) / cells - 1
