"""A backbone's GPU memory: live bytes of its tensors, counted without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from extract.backbones.frozen import FrozenBackbone
from extract.backbones.loading import BackboneCard, backbone_card
from extract.backbones.weights import Weights
from extract.swin.block import KEPT_BYTES, FoldedBlock
from extract.swin.timm_swin import probe
from tests.extract.backbones.fake_gpu import GPU, FakeGpu, fake_gpu

TINY = {"embed_dim": 64, "depths": [2, 1, 1, 1], "num_heads": [2, 2, 2, 2]}
"""A fake forward takes half a second a block."""
CARDS = {
    "v2": ("swinv2-t", TINY),
    "giant": ("swinv2-g", {**TINY, "window_size": [8, 8, 8, 4]}),
}
GIB = 1 << 30


def card_and_shapes(model: str, args: dict[str, Any] | None = None) -> tuple[BackboneCard, dict[str, Any]]:
    """Outside of `fake_gpu`, because the models of a card are cached."""
    card = backbone_card(model, args)
    trunk = probe(card.timm_id, card.constructor_args)
    return card, {name: value.shape for name, value in trunk.state_dict().items()}


def load(card: BackboneCard, shapes: dict[str, Any]) -> FrozenBackbone:
    weights = Weights({name: torch.empty(shape) for name, shape in shapes.items()}, "0" * 64)
    return FrozenBackbone(card, weights, device=GPU, precision="fp16", compiled=False)


def kept_bytes(backbone: FrozenBackbone) -> int:
    blocks = [step for step in backbone.network.steps if isinstance(step, FoldedBlock)]  # type: ignore[union-attr]
    return sum(bias.untyped_storage().nbytes() for block in blocks for bias in block._kept.values())


def forward(backbone: FrozenBackbone, gpu: FakeGpu, images: int, hw: tuple[int, int]) -> int:
    """Runs it twice, as the first time makes constants; the peak of the second time."""
    pixels = torch.empty(images, *hw, 3, dtype=torch.uint8)
    valid = torch.empty(images, 2, dtype=torch.int32)
    backbone(pixels, valid)
    gpu.peak.clear()
    for level in backbone(pixels, valid).values():
        assert level.device == GPU and level.dtype == torch.float32
    return gpu.peak["cuda"]


@pytest.mark.parametrize("case", CARDS)
def test_a_forward_stays_on_the_gpu_without_waiting_and_its_constants_within_their_limit(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial of a precision runs every block, also those whose constants will not fit."""
    backbone_of = card_and_shapes(*CARDS[case])
    with fake_gpu(monkeypatch) as gpu:
        backbone = load(*backbone_of)
        assert kept_bytes(backbone) == 0
        gpu.reads = 0
        forward(backbone, gpu, 2, (92, 124))
        assert gpu.reads == 0


@pytest.mark.slow
@pytest.mark.parametrize("read", [0.0, 1.0], ids=["fp16", "all in fp32"])
def test_the_giant_at_640_px_fits_24_gb(read: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow: 3 billion parameters, 54 steps. Counted are weights, constants, maps and what kernels return,
    while loading and in a forward of one image; not CUDA's context, about 0.5 GB, and workspaces, 0.1 GB.

    Args: read: the trial's errors; 1 has every step made again in float32.
    """
    backbone_of = card_and_shapes("swinv2-g")
    with fake_gpu(monkeypatch, read=read) as gpu:
        backbone = load(*backbone_of)
        loading, host = gpu.peak["cuda"], gpu.peak["cpu"]
        running = forward(backbone, gpu, 1, (640, 640))
        assert kept_bytes(backbone) <= KEPT_BYTES
        assert max(loading, running) < 23e9
        assert host < 13e9, "3 billion float32 parameters are 12 GB: they must not exist twice"
        print(f"loading {loading / GIB:.2f}, forward {running / GIB:.2f}, host {host / GIB:.2f} GiB")
