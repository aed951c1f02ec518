"""Pyramids of plain ViT maps: ViTDet's and feature2pyramid's formulas as loops, odd maps, strides of 14."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heads import HeadError, build_head
from heads.necks.table import build_neck
from heads.plain.blocks import four_blocks, last_block
from heads.plain.rescale import OfFourBlocks, OfLastBlock
from stores.pyramid import PyramidSpec
from tests.heads.pyramids import plain_pyramid, pyramid_of, random_labels


def blocks(channels: int, count: int, stride_px: int = 16) -> PyramidSpec:
    return PyramidSpec(plain_pyramid(channels, count, stride_px))


def doubled(x_Cyx: Tensor, conv: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution of kernel 2 and stride 2: every cell becomes four, each by its own matrix."""
    channels, height, width = conv.weight.shape[1], x_Cyx.shape[1], x_Cyx.shape[2]
    out = torch.empty(channels, 2 * height, 2 * width, dtype=x_Cyx.dtype)
    for y in range(2 * height):
        for x in range(2 * width):
            matrix_CK = conv.weight[:, :, y % 2, x % 2]
            out[:, y, x] = x_Cyx[:, y // 2, x // 2] @ matrix_CK + conv.bias
    return out


def normed(x_Cyx: Tensor, norm: nn.Module) -> Tensor:
    """Over the channels of each cell."""
    mean, variance = x_Cyx.mean(0), x_Cyx.var(0, unbiased=False)
    return (x_Cyx - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def halved(x_Cyx: Tensor) -> Tensor:
    """The largest of each 2x2 cells; fewer at the border of an odd map."""
    height, width = x_Cyx.shape[1:]
    rows = [
        torch.stack([x_Cyx[:, y : y + 2, x : x + 2].amax((1, 2)) for x in range(0, width, 2)], 1)
        for y in range(0, height, 2)
    ]
    return torch.stack(rows, 1)


def convolved(x_Cyx: Tensor, weight: Tensor) -> Tensor:
    """A convolution without bias that keeps the size, tap by tap."""
    reach = weight.shape[2] // 2
    padded = F.pad(x_Cyx, (reach,) * 4)
    height, width = x_Cyx.shape[1:]
    return sum(
        torch.einsum("kc,cyx->kyx", weight[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width])
        for dy in range(weight.shape[2])
        for dx in range(weight.shape[3])
    )


def redrawn(module: nn.Module) -> nn.Module:
    """Every parameter random: norms start as the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


@torch.no_grad()
def test_the_simple_feature_pyramid_is_vitdets() -> None:
    """Of an odd map: transposed convolutions up, a largest value down, then 1x1 and 3x3 with their norms."""
    rescaled = redrawn(OfLastBlock(blocks(8, 1)))
    neck = redrawn(build_neck("simple", (2, 4, 8, 8), 6, depth=1, norm="gn", extra_levels=1))
    x = torch.randn(1, 8, 5, 3, generator=torch.Generator().manual_seed(1))
    first, norm, _, second = rescaled.four_times
    finest = doubled(F.gelu(normed(doubled(x[0], first), norm)), second)
    maps = [finest, doubled(x[0], rescaled.twice), x[0], halved(x[0])]
    ours = rescaled([x])
    assert [tuple(made.shape[1:]) for made in ours] == [(2, 20, 12), (4, 10, 6), (8, 5, 3), (8, 3, 2)]
    outputs = []
    for made, theirs, (one, norm1, three, norm2) in zip(ours, maps, neck.levels, strict=True):
        torch.testing.assert_close(made[0], theirs, rtol=1e-4, atol=1e-5)
        outputs.append(normed(convolved(normed(convolved(theirs, one.weight), norm1), three.weight), norm2))
    outputs.append(outputs[-1][:, ::2, ::2])
    for made, theirs in zip(neck(ours), outputs, strict=True):
        torch.testing.assert_close(made[0], theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_four_blocks_stand_on_four_scales() -> None:
    rescaled = redrawn(OfFourBlocks(blocks(6, 4)))
    maps = [torch.randn(1, 6, 5, 3) for _ in range(4)]
    raw = [F.layer_norm(x.movedim(1, -1), (6,)).movedim(-1, 1) for x in maps]
    for norm in rescaled.input_norms:  # the identity again
        if hasattr(norm, "weight"):
            norm.weight.fill_(1), norm.bias.fill_(0)
    first, norm, _, second = rescaled.four_times
    hidden = doubled(raw[0][0], first)
    spread = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-5).sqrt()
    hidden = F.gelu(spread * norm.weight[:, None, None] + norm.bias[:, None, None])
    expected = [doubled(hidden, second), doubled(raw[1][0], rescaled.twice), raw[2][0], halved(maps[3][0])]
    for made, theirs in zip(rescaled(maps), expected, strict=True):
        torch.testing.assert_close(made[0], theirs, rtol=1e-4, atol=1e-4)


def test_strides_of_fourteen_are_three_and_a_half() -> None:
    """518 px are 37 cells: 148 of 3.5 px, and 19 of 28 px, the last one half padding."""
    pyramid = OfLastBlock(blocks(8, 1, 14)).pyramid
    assert [level.stride_px for level in pyramid] == [3.5, 7, 14, 28]
    assert [level.cells(518) for level in pyramid] == [148, 74, 37, 19]
    assert [level.channels for level in pyramid] == [2, 4, 8, 8]


@pytest.mark.parametrize(
    ("task", "name"),
    [("segmentation", "simplefpn"), ("segmentation", "feature2pyramid"), ("detection", "simplefpn")],
)
def test_heads_on_a_stride_of_fourteen(task: str, name: str) -> None:
    """DINOv2's patches: 70 px are 5 cells, an odd number."""
    small = {"width": 16, "norm": "gn"} if task == "segmentation" else {"width": 16, "box_width": 16}
    head = build_head(name, task, blocks(16, 4, 14), 3, seed=0, **small).eval()
    features = {level: torch.randn(1, 16, 5, 5) for level in head.levels}
    (found,) = head.predict(features, [(70, 61)], [(140, 122)])
    if task == "segmentation":
        assert found.shape == (3, 140, 122)
        loss = head.losses(features, random_labels(1, (70, 70), 3), [(70, 61)])["loss_seg"]
        loss.backward()
        assert loss.isfinite() and all(p.grad is not None for p in head.rescaled.parameters())
    else:
        assert found["boxes"].shape[1] == 4


def test_the_last_block_is_chosen_and_four_are_counted() -> None:
    both = pyramid_of(8, blocks=4)
    assert last_block(both) == ("b4n",) and four_blocks(both) == ("b1", "b2", "b3", "b4n")
    with pytest.raises(HeadError, match="head simplefpn: no map of a block of a plain ViT; available: p2"):
        build_head("simplefpn", "detection", pyramid_of(8), 3)
    with pytest.raises(HeadError, match=r"exactly four blocks.*LEVELS=b3,b6,b9,b12.*available: b1, b2, b3n"):
        build_head("feature2pyramid", "segmentation", blocks(8, 3), 3)
