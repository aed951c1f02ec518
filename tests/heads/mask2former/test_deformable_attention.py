"""Deformable attention against its definition in loops, and its initial points."""

import math

import pytest
import torch
from torch import Tensor

from heads.mask2former.deformable_attention import CellGrid, DeformableAttention, sample_levels

SIZES = [(2, 3), (4, 5)]
CELLS = sum(height * width for height, width in SIZES)
GROUPS, CHANNELS, POINTS = 2, 3, 2


def random_inputs(seed: int = 0, spread: float = 1.3) -> tuple[Tensor, Tensor, Tensor]:
    """Values, points (some outside the maps) and weights; float64, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(GROUPS, CHANNELS, CELLS, generator=generator, dtype=torch.float64)
    shape = (GROUPS, len(SIZES), POINTS)
    grid = (torch.rand(*shape, 2, CELLS, generator=generator, dtype=torch.float64) * 2 - 1) * spread
    weights = torch.randn(*shape, CELLS, generator=generator, dtype=torch.float64)
    return tuple(x.requires_grad_() for x in (values, grid, weights))


def in_loops(values: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    """Bilinear by the distances to the cells' centres, zero outside."""
    values, grid, weights = (x.detach() for x in (values, grid, weights))
    out = torch.zeros(GROUPS, CHANNELS, CELLS, dtype=values.dtype)
    for g in range(GROUPS):
        for cell in range(CELLS):
            start = 0
            for level, (height, width) in enumerate(SIZES):
                for p in range(POINTS):
                    x = (float(grid[g, level, p, 0, cell]) + 1) / 2 * width - 0.5
                    y = (float(grid[g, level, p, 1, cell]) + 1) / 2 * height - 0.5
                    for row in range(height):
                        for column in range(width):
                            near = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                            value = values[g, :, start + row * width + column]
                            out[g, :, cell] += float(weights[g, level, p, cell]) * near * value
                start += height * width
    return out


def test_samples_equal_the_loops() -> None:
    values, grid, weights = random_inputs()
    torch.testing.assert_close(sample_levels(values, grid, weights, SIZES), in_loops(values, grid, weights))


def test_gradients_are_those_of_the_samples() -> None:
    inputs = random_inputs(seed=1)
    assert torch.autograd.gradcheck(lambda *x: sample_levels(*x, SIZES), inputs)


@pytest.mark.parametrize("wanted", [(True, False, True), (False, True, False)])
def test_unneeded_gradients_are_not_computed(wanted: tuple[bool, ...]) -> None:
    inputs = [x.detach().requires_grad_(each) for x, each in zip(random_inputs(), wanted, strict=True)]
    full = random_inputs()
    sample_levels(*inputs, SIZES).sum().backward()
    sample_levels(*full, SIZES).sum().backward()
    for x, reference, each in zip(inputs, full, wanted, strict=True):
        assert (x.grad is not None) == each
        assert not each or torch.allclose(x.grad, reference.grad)


def test_initial_points_lie_one_to_four_cells_away_in_eight_directions() -> None:
    attention = DeformableAttention(16, 3)
    offsets = attention.offsets.bias.detach().view(8, 3, 4, 2)
    angles = torch.arange(8) * math.pi / 4
    assert not attention.offsets.weight.any() and not attention.weights.weight.any()
    for p in range(4):
        assert torch.allclose(offsets[:, :, p].abs().amax(-1), torch.tensor(p + 1.0))
        found = torch.atan2(offsets[:, 1, p, 1], offsets[:, 1, p, 0]) % (2 * math.pi)
        torch.testing.assert_close(found, angles)


def test_a_cell_of_its_own_is_read_exactly() -> None:
    """Offsets of zero and no other weights: each cell reads the value of its level's own cell."""
    cells = torch.randn(2, CELLS, 16)
    attention = DeformableAttention(16, len(SIZES))
    with torch.no_grad():
        attention.offsets.bias.zero_()
        attention.values.weight.copy_(torch.eye(16))
        attention.output.weight.copy_(torch.eye(16))
    grid = CellGrid.of(SIZES, cells)
    read = attention(cells, cells, grid)
    first, second = torch.split(cells, [6, 20], 1)
    resampled = [
        torch.nn.functional.grid_sample(
            level.transpose(1, 2).view(2, 16, *size),
            grid.centres_2L.t().expand(2, 1, -1, -1),
            align_corners=False,
        )[:, :, 0].transpose(1, 2)
        for level, size in zip((first, second), SIZES, strict=True)
    ]
    torch.testing.assert_close(resampled[0][:, :6], first)
    torch.testing.assert_close(resampled[1][:, 6:], second)
    torch.testing.assert_close(read, sum(resampled) / 2)
