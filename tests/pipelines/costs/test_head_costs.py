"""Counted costs beside published numbers, and beside sums over the layers of a head."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from extract.backbones.registry import backbone_card
from extract.planning.backbone_costs import backbone_costs
from heads.errors import HeadError
from heads.mask2former.pixel_decoder import PixelDecoder
from pipelines.costs.head_costs import head_costs
from stores.format.plan import Bin
from tests.heads.pyramids import pyramid_of


def test_the_pixel_decoder_is_glids() -> None:
    """Six layers over Swin-B at 640 px: 55.1 G and 5.54 M here, 55.3 and 5.5 printed (GLID, table 2)."""
    found = head_costs("m2f-pd6-td9", "segmentation", pyramid_of(128), 150, (640, 640))
    assert found.neck_parameters == 5_544_384
    assert found.neck_multiply_adds == 55_096_115_200
    with torch.device("meta"):
        decoder = PixelDecoder([128, 256, 512, 1024], 256, 6)
        maps = [torch.empty(1, 128 << i, 160 >> i, 160 >> i) for i in range(4)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(maps)
    assert counter.get_total_flops() == 2 * found.neck_multiply_adds


def test_a_neck_is_the_sum_of_its_convolutions() -> None:
    """FPN at 64 px: 1x1 laterals and 3x3 outputs of four levels, 256 wide."""
    found = head_costs("fpn", "detection", pyramid_of(8), 3, (64, 64))
    cells, channels = [16 * 16, 8 * 8, 4 * 4, 2 * 2], [8, 16, 32, 64]
    expected = sum(n * (c * 256 + 9 * 256 * 256) for n, c in zip(cells, channels, strict=True))
    assert found.neck_multiply_adds == expected
    assert found.neck_parameters == sum((c + 1) * 256 + (9 * 256 + 1) * 256 for c in channels)
    assert found.multiply_adds > found.neck_multiply_adds


def test_settings_count_and_images_do_not_share() -> None:
    wide, narrow = (
        head_costs("bifpn1", "segmentation", pyramid_of(8), 3, (64, 64), width=width) for width in (64, 32)
    )
    assert wide.multiply_adds > 2 * narrow.multiply_adds and wide.parameters > 2 * narrow.parameters
    again = head_costs("bifpn1", "segmentation", pyramid_of(8), 3, (64, 128), width=32)
    assert again.neck_multiply_adds == 2 * narrow.neck_multiply_adds
    with pytest.raises(HeadError, match="needs level p2"):
        head_costs("bifpn1", "segmentation", pyramid_of(8).select(["p4", "p5"]), 3, (64, 64))


def test_a_plain_backbone_is_its_products() -> None:
    """Patches, then of each block qkv, attention, projection and two layers, over tokens of 64 x 96 px."""
    args = {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 64}
    card = backbone_card("timm:vit_tiny_patch16_224", args, ["b2"])
    found = backbone_costs(card, [Bin(height_px=64, width_px=96, rows=1, shard_rows=1)])
    patches, width = 4 * 6, 48
    tokens = patches + 1
    block = tokens * width * width * (3 + 1 + 4 + 4) + 2 * tokens * tokens * width
    assert found == {
        "input_px": [64, 96],
        "tokens": patches,
        "multiply_adds": patches * 3 * 16 * 16 * width + 2 * block,
    }
    clip = backbone_costs(card, [Bin(height_px=64, width_px=96, rows=1, shard_rows=1)], frames=4)
    assert clip["multiply_adds"] == 4 * found["multiply_adds"] and clip["tokens"] == 4 * patches


def test_a_resnet_has_no_tokens() -> None:
    card = backbone_card("timm:resnet18", None, ["p2"])
    found = backbone_costs(card, [Bin(height_px=64, width_px=64, rows=1, shard_rows=1)])
    stem, layers = 32 * 32 * 3 * 49 * 64, 4 * 16 * 16 * 9 * 64 * 64
    assert found["tokens"] is None and found["multiply_adds"] == stem + layers


def test_counting_leaves_torch_as_it_was() -> None:
    head_costs("linear", "segmentation", pyramid_of(8), 3, (64, 64))
    assert nn.Linear(2, 2)(torch.ones(2)).device == torch.device("cpu")
