"""Pyramids and features that the tests of heads share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stores.pyramid import ONE_CELL_PX, Level, PyramidSpec

SWINV2_CHANNELS = {"t": 96, "b": 128, "l": 192, "g": 512}


def pyramid_of(first_channels: int, levels: int = 4, blocks: int = 0) -> PyramidSpec:
    """p2..p5 and, beside them, blocks of a plain ViT of stride 16."""
    of_stages = [
        Level(name=f"p{i + 2}", stride_px=4 << i, channels=first_channels << i, stage=i + 1)
        for i in range(levels)
    ]
    return PyramidSpec((*of_stages, *plain_pyramid(4 * first_channels, blocks)))


def plain_pyramid(channels: int, blocks: int, stride_px: int = 16) -> tuple[Level, ...]:
    """Maps of the blocks of a plain ViT, the last one after its norm."""
    return tuple(
        Level(name=f"b{i}{'n' * (i == blocks)}", stride_px=stride_px, channels=channels, stage=i)
        for i in range(1, blocks + 1)
    )


def clip_pyramid(channels: int) -> PyramidSpec:
    """The pyramid of video heads: the normed last stage alone."""
    return PyramidSpec((Level(name="p5n", stride_px=32, channels=channels, stage=4),))


def probe_pyramid(channels: int) -> PyramidSpec:
    """What a ViT of four blocks gives linear probes: class tokens, the mean of the last block, a map."""
    one_cell = [(f"cls{block}n", ONE_CELL_PX, block) for block in range(1, 5)] + [("avg4n", ONE_CELL_PX, 4)]
    levels = [("p5", 32, 4), *one_cell]
    return PyramidSpec(
        tuple(
            Level(name=name, stride_px=stride, channels=channels, stage=stage)
            for name, stride, stage in levels
        )
    )


def random_clips(
    pyramid: PyramidSpec, clips: int, frames: int, padded_hw: tuple[int, int], seed: int = 0
) -> dict[str, Tensor]:
    """Standard normal (N, C, T, y, x), float32, in memory as a store has them: time, y, x, channels."""
    generator = torch.Generator().manual_seed(seed)
    return {
        level.name: torch.randn(
            clips, frames, *(level.cells(size) for size in padded_hw), level.channels, generator=generator
        ).movedim(-1, 1)
        for level in pyramid
    }


def random_features(
    pyramid: PyramidSpec, images: int, padded_hw: tuple[int, int], seed: int = 0
) -> dict[str, Tensor]:
    """Standard normal, channels_last, float32; level sizes of the padded image."""
    generator = torch.Generator().manual_seed(seed)
    return {
        level.name: torch.randn(
            images, level.channels, *(level.cells(size) for size in padded_hw), generator=generator
        ).contiguous(memory_format=torch.channels_last)
        for level in pyramid
    }


def random_labels(images: int, hw: tuple[int, int], classes: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """uint8 label maps, about a tenth ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images, *hw), generator=generator, dtype=torch.uint8)
    labels[torch.rand(images, *hw, generator=generator) < 0.1] = 255
    return [{"labels": each} for each in labels]


def random_depths(images: int, hw: tuple[int, int], seed: int = 0) -> list[dict[str, Tensor]]:
    """uint16 millimetres below 0.5 m, far from what new heads predict; about a tenth is not measured."""
    generator = torch.Generator().manual_seed(seed)
    depths = torch.randint(100, 500, (images, *hw), generator=generator)
    depths[torch.rand(images, *hw, generator=generator) < 0.1] = 0
    return [{"depth": each.to(torch.uint16)} for each in depths]


def random_keypoints(
    sizes_hw: Sequence[tuple[int, int]], count: int, seed: int = 0
) -> list[dict[str, Tensor]]:
    """Places within each view and visibility 0, 1 or 2; some lie beside it."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for height, width in sizes_hw:
        places = torch.rand(count, 2, generator=generator) * torch.tensor([1.2 * width, 1.2 * height])
        seen = torch.randint(0, 3, (count, 1), generator=generator)
        seen[0] = 2
        rows.append({"keypoints": torch.cat([places, seen], 1).float()})
    return rows


def parameter_count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
