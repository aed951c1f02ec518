"""Windows no smaller than a map, under both rules, beside four implementations on equal, re-drawn weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from extract.backbones import registry
from extract.backbones.loading import BackboneCard, backbone_card, build_trunk, load_backbone
from extract.backbones.weights import get_weights
from extract.swin.timm_swin import set_window_rule
from tests.extract.backbones.small import SMALL, SMALL_GIANT, images, timm_levels, timm_trunk, worst_error
from tests.extract.swin.loop_reference import loop_trunk
from tests.extract.swin.oracle import build_oracle, oracle_levels

TOLERANCE = 1e-5
"""Orders of summation differ by about 1e-6 in float32; a wrong window or shift is 1e-2 and more."""
V1, V2_W16 = "timm:swin_tiny_patch4_window7_224", "timm:swinv2_base_window16_256.ms_in1k"
GIANT = {**SMALL_GIANT, "window_size": [8, 8, 8, 8]}
CARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "v2": ("swinv2-t", SMALL),
    "v2 of window 12": ("swinv2-b", {**SMALL, "window_size": 12}),
    "giant": ("swinv2-g", GIANT),
    "v1": (V1, SMALL),
}
Weights = Mapping[str, Tensor]


def weights_of(card: BackboneCard) -> Weights:
    return get_weights(card, "random:0", build_trunk(card)).tensors


def cover(model: str, args: dict[str, Any]) -> BackboneCard:
    return backbone_card(model, args, window_rule="cover")


def own_levels(card: BackboneCard, hw: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
    """The frozen backbone's levels of one image, and its normalised pixels."""
    backbone, batch = load_backbone(card, "random:0"), images(1, hw)
    return list(backbone(*batch).values()), backbone.normalise(*batch)


def errors(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    return [worst_error(a, b) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize(("model", "version", "px"), [(V1, 1, 224), ("swinv2-t", 2, 256)])
def test_native_sizes_equal_torchvision(model: str, version: int, px: int) -> None:
    card = cover(model, SMALL)
    ours, x = own_levels(card, (px, px))
    theirs = torchvision_levels(version, weights_of(card), x)
    assert max(errors(ours, theirs)) < TOLERANCE
    partitioned, _ = own_levels(backbone_card(model, SMALL), (px, px))
    assert max(errors(partitioned, theirs)[:3]) < TOLERANCE
    assert errors(partitioned, theirs)[3] > 0.01, "the rules differ in the last stage"


def torchvision_levels(version: int, weights: Weights, x_NHWC: Tensor) -> list[Tensor]:
    """Of torchvision's `swin_t` (version 1) or `swin_v2_t`, with the widths of SMALL."""
    from torchvision.models import swin_transformer as tv

    kinds: dict[str, Any] = {"block": tv.SwinTransformerBlock, "downsample_layer": tv.PatchMerging}
    if version == 2:
        kinds = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2}
    widths = SMALL["embed_dim"], SMALL["depths"], SMALL["num_heads"]
    oracle = tv.SwinTransformer([4, 4], *widths, [7 if version == 1 else 8] * 2, **kinds)
    renamed = {}
    for name, tensor in weights.items():
        if name.endswith("attn.q_bias"):
            parts = [tensor, torch.zeros_like(tensor), weights[name.replace("q_bias", "v_bias")]]
            renamed[_torchvision_name(name.replace("q_bias", "qkv.bias"))] = torch.cat(parts)
        elif not name.endswith("attn.v_bias"):
            renamed[_torchvision_name(name)] = tensor
    missing, unexpected = oracle.load_state_dict(renamed, strict=False)
    given = [name for name in missing if "relative_" not in name or name.endswith("bias_table")]
    assert not unexpected and given == ["head.weight", "head.bias"], (given, unexpected)
    levels, x = [], x_NHWC.permute(0, 3, 1, 2)
    with torch.inference_mode():
        for number, step in enumerate(oracle.eval().features):
            x = step(x)
            if number % 2:
                levels.append(x)
    return levels


def _torchvision_name(name: str) -> str:
    """features.0 are the patches, then stages and merges take turns."""
    for ours, theirs in (
        ("patch_embed.proj", "features.0.0"),
        ("patch_embed.norm", "features.0.2"),
        ("mlp.fc1", "mlp.0"),
        ("mlp.fc2", "mlp.3"),
    ):
        name = name.replace(ours, theirs)
    if not name.startswith("layers."):
        return name
    _, stage, kind, rest = name.split(".", 3)
    return f"features.{2 * int(stage) + (kind == 'blocks')}.{rest}"


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("model", "args", "px"),
    [
        ("swinv2-t", SMALL, 256),
        ("swinv2-b", SMALL, 192),
        (V2_W16, SMALL, 256),
        ("swinv2-b", {**SMALL, "window_size": 7}, 224),
        ("swinv2-t", {**SMALL, "window_size": 16}, 128),
    ],
)
def test_square_images_equal_transformers(model: str, args: dict[str, Any], px: int) -> None:
    pytest.importorskip("transformers")
    card = cover(model, args)
    ours, x = own_levels(card, (px, px))
    oracle = build_oracle(card, weights_of(card), native_px=px)
    assert max(errors(ours, oracle_levels(oracle, x))) < TOLERANCE


@pytest.mark.parametrize(
    ("model", "args", "hw"),
    [("swinv2-t", SMALL, (256, 512)), ("swinv2-g", GIANT, (512, 256)), (V1, SMALL, (224, 448))],
)
def test_each_axis_by_itself_equals_timm(model: str, args: dict[str, Any], hw: tuple[int, int]) -> None:
    """The last stage is one window high and two wide: shifted along the one axis alone."""
    card = cover(model, args)
    ours, x = own_levels(card, hw)
    settings = {key: value for key, value in card.constructor_args.items() if key != "always_partition"}
    oracle = timm.create_model(card.timm_id, num_classes=0, img_size=hw, **settings).eval()
    oracle.load_state_dict(dict(weights_of(card)))
    assert [block.shift_size for block in stages(oracle)[-1].blocks][1] in {(0, 4), (4, 0), (0, 3)}
    assert max(errors(ours, timm_levels(oracle, x))) < TOLERANCE


def stages(trunk: Any) -> Any:
    return getattr(trunk, "stages", None) or trunk.layers


@pytest.mark.parametrize("rule", ["partition", "cover"])
@pytest.mark.parametrize("case", CARDS)
@pytest.mark.parametrize(
    "hw",
    [
        (92, 124),  # maps of 23x31 to 3x4: odd, padded, and smaller than windows
        pytest.param((252, 332), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_odd_maps_equal_a_loop_over_queries(case: str, rule: str, hw: tuple[int, int]) -> None:
    model, args = CARDS[case]
    ours, x = own_levels(backbone_card(model, args, window_rule=rule), hw)
    reference = loop_trunk(timm_trunk(backbone_card(model, args)), rule)
    theirs = timm_levels(reference, x.double())
    assert max(errors([level.double() for level in ours], theirs)) < TOLERANCE


def test_the_trunk_to_train_follows_its_rule_and_learns_through_cut_windows() -> None:
    """Gradients reach the bias of cut windows: a table of V1, a network of V2."""
    for model, part in ((V1, "relative_position_bias_table"), ("swinv2-t", "cpb_mlp.0.weight")):
        card = cover(model, SMALL)
        trunk = timm_trunk(card)
        x = own_levels(card, (92, 124))[1]
        cut = timm_levels(trunk, x)
        assert max(errors(cut, own_levels(card, (92, 124))[0])) < TOLERANCE
        set_window_rule(trunk, "partition")
        assert errors(timm_levels(trunk, x), cut)[3] > 0.01
        set_window_rule(trunk, "cover")
        parameter: nn.Parameter = dict(trunk.named_parameters())[f"layers.3.blocks.1.attn.{part}"]
        trunk.forward_intermediates(x.permute(0, 3, 1, 2))[0].square().sum().backward()
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_the_rule_is_part_of_the_identity_where_it_is_not_that_of_earlier_releases() -> None:
    names = {
        rule: backbone_card("swinv2-t", SMALL, window_rule=rule).identity(weights_sha256="", precision="fp32")
        for rule in ("partition", "cover")
    }
    assert names["cover"] == {**names["partition"], "window_rule": "cover"}
    assert "window_rule" not in names["partition"]
    assert backbone_card("swinv2-t", SMALL) == backbone_card("swinv2-t", SMALL, window_rule="partition")


def test_a_family_has_a_revision_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [backbone_card(model) for model in ("swinv2-nano", "swinv2-g", V1, "timm:resnet18")]
    families = [card.family for card in cards]
    assert families == ["swinv2", "swinv2_cr", "swin", "features"]
    monkeypatch.setitem(registry.REVISIONS, "swin", 2)
    found = [card.identity(weights_sha256="", precision="fp32")["revision"] for card in cards]
    assert found == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("model", "rule", "message"),
    [
        ("timm:resnet18", "cover", "window rule cover: timm:resnet18 is no Swin"),
        ("swinv2-t", "pad", "window rule 'pad': expected partition or cover"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(model: str, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbone_card(model, window_rule=rule)
