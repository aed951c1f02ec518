"""A trained run, or its head alone, as a module of tensors, which torch.export can trace.

Letters in tensor names: N images or clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from extract.backbones.frozen import FrozenBackbone
from extract.backbones.frozen_swin import FoldedSwin
from heads.contract import Head
from pipelines.export.outputs import Outputs, outputs_of


class TensorHead(nn.Module):
    """A head alone: `levels`, float32 (N, C, [T,] y, x) by name, and `valid_hw`, int64 (N, 2), in; see
    pipelines/export/outputs.py for what comes out."""

    def __init__(self, head: Head, size: tuple[int, int]) -> None:
        """Args: size: height and width of the padded views in pixels."""
        super().__init__()
        self.head, self.size = head, size
        self._read = outputs_of(head)

    def forward(self, levels: Mapping[str, Tensor], valid_hw: Tensor) -> Outputs:
        return self._read(self.head, levels, valid_hw, self.size)


class TensorModel(nn.Module):
    """Frozen backbone and head: pixels, uint8 RGB (N, [T,] 3, H, W), and `valid_hw`, int64 (N, 2), in.

    Images are views: resized as the run's test views are, and padded at the bottom and the right.
    """

    def __init__(self, backbone: FrozenBackbone, head: Head, size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.rest = TensorHead(head, size)

    def forward(self, images: Tensor, valid_hw: Tensor) -> Outputs:
        frames = images.shape[1:-3]
        pixels_NHWC = images.flatten(0, len(frames)).permute(0, 2, 3, 1)
        sizes = valid_hw
        for count in frames:
            sizes = sizes.repeat_interleave(count, dim=0)
        found = self.backbone.batch_levels(pixels_NHWC, sizes)
        levels = {
            name: x_NyxC.view(-1, *frames, *x_NyxC.shape[1:]).movedim(-1, 1) for name, x_NyxC in found.items()
        }
        outputs: Outputs = self.rest(levels, valid_hw)
        return outputs


@contextmanager
def whole_batches(backbone: FrozenBackbone) -> Iterator[None]:
    """Inside, a Swin runs all images of a batch at once, as on a GPU: a CPU's loops over images and groups of
    windows would be unrolled."""
    network = backbone.network
    if not isinstance(network, FoldedSwin):
        yield
        return
    before, network.runs_as = network.runs_as, "cuda"
    try:
        yield
    finally:
        network.runs_as = before


def made_views(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Noise to trace and check a model with: pixels, uint8 of `shape`, (N, [T,] 3, H, W), and valid sizes,
    int64 (N, 2): of clips all of them, of images one whole and others smaller."""
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    height, width = shape[-2:]
    sizes = [(height, width), (height, max(1, width * 3 // 4)), (max(1, height // 2), width)]
    is_clip = len(shape) == 5
    return pixels, torch.tensor([sizes[0 if is_clip else i % len(sizes)] for i in range(shape[0])])
