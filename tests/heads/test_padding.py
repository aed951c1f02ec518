"""Effect of padding to a multiple of 32 on predictions.

mmseg does not pad test images to 32; stores do. A small SwinV2 of transformers, which takes any size, gives
features of the same image both ways; it is untrained, normalises tiny random branches and so exaggerates.

What differs where the two have different cell counts: unpadded maps of 171, 86, 43 and 22 cells (683 px) are
stretched onto each other, off by up to 21 px at the right edge, while padded maps keep their strides;
windows and 3x3 convolutions see tokens beyond the edge. With equal cell counts there is no difference.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads import build_head
from heads.contract import Head
from tests.heads.pyramids import pyramid_of, random_features

PADDED_HW = (512, 704)
NAMES = ["linear", "fpn", "bifpn2"]


def head_of(name: str, **settings: object) -> Head:
    if name != "linear":
        settings["width"] = 32
    return build_head(name, "segmentation", pyramid_of(24), 7, seed=0, **settings).eval()


@pytest.mark.oracle
@pytest.mark.parametrize(("width_px", "bound"), [(701, 1e-4), (672, 0.35), (683, 0.5)])
@pytest.mark.parametrize("name", NAMES)
def test_padded_against_unpadded(
    name: str, width_px: int, bound: float, backbone: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    valid_hw = (512, width_px)
    image = F.interpolate(
        torch.randn(1, 3, 64, 88, generator=torch.Generator().manual_seed(0)), size=PADDED_HW, mode="bicubic"
    )[..., :width_px]
    head = head_of(name)
    padded = maps_of(backbone, F.pad(image, (0, PADDED_HW[1] - width_px)))
    (alone,) = head.predict(maps_of(backbone, image), [valid_hw], [valid_hw])
    (ours,) = head.predict(padded, [valid_hw], [valid_hw])
    (careless,) = head.predict(padded, [PADDED_HW], [PADDED_HW])
    spread = alone.std(dim=(1, 2)).mean()
    relative = float((ours - alone).abs().mean() / spread)
    without = float((careless[..., :width_px] - alone).abs().mean() / spread)
    same = float((ours.argmax(0) == alone.argmax(0)).float().mean())
    with capsys.disabled():
        print(
            f"\n{name}, 512x{width_px} padded to 512x704 against unpadded: off by {relative:.4f} "
            f"of the probabilities' spread ({without:.4f} without valid sizes), {same:.2%} of pixels alike"
        )
    assert relative < bound and relative < without


@pytest.mark.parametrize("name", NAMES)
def test_padding_reaches_no_further_than_the_convolutions(name: str) -> None:
    """Pooling over the padding would spread it everywhere, as GroupNorm does (2 % of the spread)."""
    valid_hw, reach_px = (512, 672), {"linear": 24, "fpn": 96, "bifpn2": 320}[name]
    settings = {"neck_norm": "none"} if name.startswith("bifpn") else {}
    pyramid, head = pyramid_of(24), head_of(name, **settings)
    padded = random_features(pyramid, 1, PADDED_HW)
    cut = {level.name: padded[level.name][..., : level.cells(valid_hw[1])] for level in pyramid}
    (alone,) = head.predict(cut, [valid_hw], [valid_hw])
    (ours,) = head.predict(padded, [valid_hw], [valid_hw])
    seen = valid_hw[1] - reach_px
    torch.testing.assert_close(ours[..., :seen], alone[..., :seen], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, alone, rtol=1e-4, atol=1e-5), "the edge does see it"


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Swinv2Config(
        image_size=256,
        embed_dim=24,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=8,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.Swinv2Backbone(config).eval()


def maps_of(backbone: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(zip(("p2", "p3", "p4", "p5"), backbone(pixels).feature_maps, strict=True))
