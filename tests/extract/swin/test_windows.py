"""One gather pads, rolls and partitions; four masks serve every map."""

import pytest
import torch
from torch.nn import functional as F

from extract.swin.windows import partition, shift_mask, split_mask, window_plan

CASES = [
    ((16, 24), (8, 8), (4, 4)),
    ((16, 24), (8, 8), (0, 0)),
    ((13, 17), (8, 8), (4, 4)),
    ((5, 3), (8, 8), (4, 4)),
    ((7, 20), (4, 6), (2, 3)),
    ((1, 1), (6, 6), (3, 3)),
]


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_gather_is_pad_then_roll_then_partition(grid, window, shift):
    plan = window_plan(grid, window, shift, torch.device("cpu"))
    x = torch.arange(1.0, grid[0] * grid[1] + 1).view(1, *grid, 1)
    rows, columns = -grid[0] % window[0], -grid[1] % window[1]
    rolled = torch.roll(F.pad(x, (0, 0, 0, columns, 0, rows)), (-shift[0], -shift[1]), (1, 2))
    expected = partition(rolled, window).squeeze(-1)
    flat = torch.cat([x.flatten(), torch.zeros(1)])
    ours = flat[plan.gather].view(-1, plan.tokens)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, expected.tolist()))
    assert plan.padded == bool(rows or columns)


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_scatter_brings_every_token_back(grid, window, shift):
    plan = window_plan(grid, window, shift, torch.device("cpu"))
    assert torch.equal(plan.gather[plan.scatter], torch.arange(grid[0] * grid[1]))


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_runs_have_the_masks_of_the_whole_map(grid, window, shift):
    plan = window_plan(grid, window, shift, torch.device("cpu"))
    rows, columns = grid[0] + -grid[0] % window[0], grid[1] + -grid[1] % window[1]
    whole = shift_mask((rows, columns), window, shift)
    if whole is None:
        assert plan.runs == ((0, len(plan.gather) // plan.tokens, (False, False)),)
        return
    ours = [split_mask(window, shift, split) for first, last, split in plan.runs for _ in range(first, last)]
    assert sorted(m.flatten().tolist() for m in ours) == sorted(m.flatten().tolist() for m in whole)
    position = torch.arange(rows * columns, dtype=torch.float32).view(1, rows, columns, 1)
    by_window = partition(torch.roll(position, (-shift[0], -shift[1]), (1, 2)), window).squeeze(-1)
    of_map = {tuple(tokens.tolist()): mask for tokens, mask in zip(by_window, whole, strict=True)}
    if not plan.padded:
        for tokens, mask in zip(plan.gather.view(-1, plan.tokens), ours, strict=True):
            assert torch.equal(of_map[tuple(tokens.float().tolist())], mask)


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_tokens_of_a_window_meet_where_their_regions_are_equal(grid, window, shift):
    plan = window_plan(grid, window, shift, torch.device("cpu"))
    regions = plan.regions.view(plan.windows, plan.tokens)
    for first, last, split in plan.runs:
        apart = split_mask(window, shift, split) < 0
        for region in regions[first:last]:
            assert torch.equal(region[:, None] != region[None, :], apart)
    assert [split != (False, False) for *_, split in plan.runs] == [f >= plan.whole for f, *_ in plan.runs]
