"""Levels by name: of stages, blocks, tokens and pooled vectors, beside timm's own calls on equal weights."""

import pytest
import torch

from extract.backbones.loading import backbone_card, build_trunk, load_backbone
from extract.backbones.weights import get_weights
from stores.pyramid import ONE_CELL_PX
from tests.extract.backbones.small import SMALL, images, worst_error

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 64}
"""A plain ViT of three blocks; every other setting is that of the model named."""
VIT = ("timm:vit_tiny_patch16_224", TINY)
REGISTERS = ("timm:vit_small_patch14_reg4_dinov2", {**TINY, "img_size": 70})
DINOV3 = ("timm:vit_small_patch16_dinov3", TINY)
SIGLIP = ("timm:vit_base_patch16_siglip_224", TINY)
CLIP = ("timm:vit_base_patch16_clip_224", TINY)
EVA = ("timm:eva02_tiny_patch14_224", {**TINY, "img_size": 70})
BEIT = ("timm:beit_base_patch16_224", TINY)
SAM = ("timm:samvit_base_patch16", {**TINY, "global_attn_indexes": [2], "window_size": 3})
XCIT = ("timm:xcit_nano_12_p16_224", {"embed_dim": 48, "depth": 3, "num_heads": 3})
NANO = ("swinv2-nano", {})
SWIN = ("timm:swin_tiny_patch4_window7_224", SMALL)
LITE = ("timm:tf_efficientnet_lite0", {})
CONVNEXT = ("timm:convnext_atto", {})
DINOV3_CONVNEXT = ("timm:convnext_tiny.dinov3_lvd1689m", {})

PLAIN = [VIT, REGISTERS, DINOV3, SIGLIP, CLIP, EVA, BEIT, SAM, XCIT]


def made(case, levels):
    """The card, the frozen backbone, and timm's trunk with the same weights."""
    card = backbone_card(*case, levels)
    trunk = build_trunk(card)
    trunk.load_state_dict(dict(get_weights(card, "random:0", trunk).tensors))
    return card, load_backbone(card, "random:0"), trunk.eval()


def normalised(backbone, hw):
    pixels, sizes = images(1, hw)
    return (pixels, sizes), backbone.normalise(pixels, sizes).permute(0, 3, 1, 2)


def side(case) -> int:
    return case[1].get("img_size", 64)


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case[0])
@torch.inference_mode()
def test_maps_and_vectors_of_plain_models_are_timms(case) -> None:
    default = backbone_card(*case).pyramid.names
    card, backbone, trunk = made(case, ["b1", *default, "avg2", "pooled"])
    assert backbone.card.identity(weights_sha256="", precision="fp32")["revision"] == 1
    view, x = normalised(backbone, (side(case), side(case)))
    found = backbone(*view)
    norm = default == ("b3n",)
    first, second, last = trunk.forward_intermediates(x, indices=3, intermediates_only=True)
    if norm:
        last = trunk.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]
    for name, theirs in (("b1", first), (default[0], last), ("avg2", second.mean((2, 3), keepdim=True))):
        level = card.pyramid[name]
        assert tuple(theirs.shape[1:]) == (level.channels, level.cells(side(case)), level.cells(side(case)))
        assert worst_error(found[name].permute(0, 3, 1, 2), theirs) < 1e-5, name
    pooled = trunk.forward_head(trunk.forward_features(x), pre_logits=True)
    assert card.pyramid["pooled"].channels == pooled.shape[1]
    assert worst_error(found["pooled"], pooled[:, None, None]) < 1e-5


@pytest.mark.parametrize("case", [VIT, REGISTERS, DINOV3], ids=lambda case: case[0])
@torch.inference_mode()
def test_tokens_before_the_patches_are_levels_of_one_cell(case) -> None:
    registers = case is not VIT
    card, backbone, trunk = made(case, ["cls2", "cls3n", *["reg3n"] * registers])
    assert all(level.is_pooled and level.stride_px == ONE_CELL_PX for level in card.pyramid)
    view, x = normalised(backbone, (side(case), side(case)))
    found = backbone(*view)
    (_, raw), (_, last) = trunk.forward_intermediates(
        x, indices=2, return_prefix_tokens=True, intermediates_only=True
    )
    normed = trunk.norm(last)
    assert worst_error(found["cls2"], raw[:, None, :1]) < 1e-5
    assert worst_error(found["cls3n"], normed[:, None, :1]) < 1e-5
    if registers:
        assert normed.shape[1] == 5 and card.pyramid["reg3n"].channels == 4 * 48
        assert worst_error(found["reg3n"], normed[:, None, None, 1:].flatten(3)) < 1e-5


@pytest.mark.parametrize("case", [NANO, SWIN, ("swinv2-g", {**SMALL, "window_size": 8})], ids=["2", "1", "g"])
@torch.inference_mode()
def test_vectors_and_blocks_of_a_swin(case) -> None:
    names = ["p5n", "p3", "s2.b1", "s2.b2", "s4.b1", "avg", "pooled"]
    card, backbone, trunk = made(case, names)
    assert card.pyramid.names == ("s2.b1", "s2.b2", "p3", "s4.b1", "p5n", "avg", "pooled")
    view, x = normalised(backbone, (224, 224))
    found = backbone(*view)
    assert torch.equal(found["s2.b2"], found["p3"])
    assert found["s2.b1"].shape == found["p3"].shape and not torch.equal(found["s2.b1"], found["p3"])
    assert found["s4.b1"].shape == found["p5n"].shape
    assert torch.equal(found["avg"], found["pooled"])
    if case[0] != "swinv2-g":  # timm's classifier of the giant reads no norm
        pooled = trunk.forward_head(trunk.forward_features(x), pre_logits=True)
        assert worst_error(found["avg"], pooled[:, None, None]) < 1e-5


@pytest.mark.parametrize(
    "case", [LITE, CONVNEXT, pytest.param(DINOV3_CONVNEXT, marks=pytest.mark.ci)], ids=lambda case: case[0]
)
@torch.inference_mode()
def test_vectors_of_a_pyramid(case) -> None:
    card, backbone, trunk = made(case, ["p5", "avg", "pooled"])
    view, x = normalised(backbone, (96, 64))
    found = backbone(*view)
    assert worst_error(found["avg"], found["p5"].mean((1, 2), keepdim=True)) < 1e-6
    pooled = trunk.forward_head(trunk.forward_features(x), pre_logits=True)
    assert card.pyramid["pooled"].channels == pooled.shape[1]
    assert worst_error(found["pooled"], pooled[:, None, None]) < 1e-5


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_the_convnexts_of_dinov3_are_pyramids(size) -> None:
    """Under the names that timm has them by, with DINOv3's own licence and normalisation."""
    card = backbone_card(f"timm:convnext_{size}.dinov3_lvd1689m", None, ["p2", "p3", "p4", "p5", "pooled"])
    assert [level.stride_px for level in card.pyramid][:4] == [4, 8, 16, 32]
    assert card.multiple_px == 32 and card.licence == "dinov3-license"
    assert (
        card.mean == (0.485, 0.456, 0.406) and card.pyramid["pooled"].channels == card.pyramid["p5"].channels
    )


@pytest.mark.parametrize(
    ("case", "names"),
    [
        (NANO, ("avg",)),
        (LITE, ("avg", "pooled")),
        (VIT, ("avg3n", "pooled")),
        (SIGLIP, ("avg2", "pooled")),
        (SAM, ("pooled",)),
    ],
    ids=["nano", "lite", "vit", "siglip", "sam"],
)
@torch.inference_mode()
def test_padded_cells_enter_no_vector(case, names, monkeypatch) -> None:
    """Whatever stands in the padded cells of the last map, the vector is that of the shown ones."""
    _, backbone, _ = made(case, names)
    pixels, _ = images(1, (64, 64))
    sizes = torch.tensor([[40, 33]])
    honest, outputs = backbone(pixels, sizes), backbone.network.outputs

    def spoilt(x):
        found = outputs(x)
        for x_NyxC in found.maps.values():
            _spoil(x_NyxC, backbone.card.last_stride_px)
        final = found.final
        if final is not None:
            grid = 64 // backbone.card.last_stride_px
            tokens = (
                final[:, -grid * grid :].unflatten(1, (grid, grid))
                if final.ndim == 3
                else final.movedim(1, -1)
            )
            _spoil(tokens, backbone.card.last_stride_px)
        return found

    monkeypatch.setattr(backbone.network, "outputs", spoilt)
    again = backbone(pixels, sizes)
    assert all(torch.equal(again[name], honest[name]) for name in names)


def _spoil(x_NyxC, stride_px) -> None:
    x_NyxC[:, -(-40 // stride_px) :] = torch.inf
    x_NyxC[:, :, -(-33 // stride_px) :] = torch.nan


@torch.inference_mode()
def test_an_image_beside_others_has_the_vectors_it_has_alone() -> None:
    _, backbone, _ = made(VIT, ["avg3n", "pooled", "cls1"])
    pixels, _ = images(3, (64, 64))
    sizes = torch.tensor([[64, 64], [40, 33], [64, 20]])
    together = backbone(pixels, sizes)
    for i in range(3):
        alone = backbone(pixels[i : i + 1], sizes[i : i + 1])
        assert all(torch.equal(alone[name], together[name][i : i + 1]) for name in together)


@pytest.mark.parametrize(
    ("case", "name", "message"),
    [
        (
            VIT,
            "p5n",
            r"has no level p5n; it has b1..b3, cls1..cls3, avg1..avg3, each also after .*b3n.*, pooled",
        ),
        (VIT, "b4", r"no level b4 \(it has 3 blocks\)"),
        (VIT, "reg1", r"no level reg1 \(it returns no register tokens\)"),
        (SIGLIP, "cls3n", r"no level cls3n \(it returns no class token\)"),
        (SAM, "cls3", "it returns no class token"),
        (XCIT, "cls3", "it returns no class token"),
        (BEIT, "b3n", r"no level b3n \(it has no last norm over its tokens: take the raw level"),
        (EVA, "cls3n", "it has no last norm over its tokens"),
        (SAM, "b3n", "it has no last norm over its tokens"),
        (VIT, "avg", "no level avg; it has"),
        (NANO, "s3.b3", r"no level s3.b3 \(its stages have 2, 2, 2, 2 blocks\)"),
        (NANO, "b1", "no level b1; it has p2, p3, p4, p5, p5n, s<stage>.b<block>, avg, pooled"),
        (LITE, "p5n", "no level p5n; it has p2, p3, p4, p5, avg, pooled"),
        (LITE, "s1.b1", "no level s1.b1"),
    ],
)
def test_levels_that_a_model_lacks_are_refused_by_name(case, name, message) -> None:
    with pytest.raises(ValueError, match=message):
        backbone_card(*case, [name])


def test_a_model_without_a_pyramid_still_has_its_vector() -> None:
    _, backbone, trunk = made(("timm:csatv2", {}), ["pooled"])
    view, x = normalised(backbone, (128, 128))
    with torch.inference_mode():
        pooled = trunk.forward_head(trunk.forward_features(x), pre_logits=True)
        assert worst_error(backbone(*view)["pooled"], pooled[:, None, None]) < 1e-5
