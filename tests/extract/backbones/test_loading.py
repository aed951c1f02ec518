"""Cards, level selection, preprocessing, and rows whose bytes depend on nothing but themselves."""

import pickle

import pytest
import torch
from torch import nn

from extract.backbones.loading import (
    BACKBONES,
    BackboneTooLarge,
    WeightsUnavailable,
    backbone_card,
    build_trunk,
    load_backbone,
    weights_sha256,
)
from tests.extract.backbones.small import SMALL, SMALL_GIANT, images, timm_levels, timm_trunk, worst_error

GIANT = {**SMALL_GIANT, "window_size": [8, 8, 8, 4]}
SIX_BACKBONES = [
    ("swinv2-nano", {}),
    ("swinv2-t", SMALL),
    ("swinv2-g", GIANT),
    ("timm:swin_tiny_patch4_window7_224", SMALL),
    ("timm:convnext_atto", {}),
    ("timm:resnet18", {}),
]


def names(case) -> str:
    return case[0] if isinstance(case, tuple) else str(case)


@pytest.mark.parametrize("model", BACKBONES)
def test_cards_need_no_weights(model):
    card = backbone_card(model)
    assert card.pyramid.names == ("p2", "p3", "p4", "p5")
    assert [level.stride_px for level in card.pyramid] == [4, 8, 16, 32]
    assert [level.channels for level in card.pyramid] == [card.pyramid["p2"].channels << i for i in range(4)]
    assert pickle.loads(pickle.dumps(card)) == card


def test_windows_are_those_of_pretraining_at_any_size():
    assert backbone_card("swinv2-t").windows == ((8, 8),) * 4
    assert backbone_card("swinv2-b").windows == ((12, 12), (12, 12), (12, 12), (6, 6))
    sixteen = backbone_card("timm:swinv2_base_window12to16_192to256.ms_in22k_ft_in1k")
    assert sixteen.windows == ((16, 16), (16, 16), (16, 16), (8, 8))
    assert sixteen.pretrained_windows == ((12, 12), (12, 12), (12, 12), (6, 6))


def test_a_changed_window_keeps_the_coordinates_of_pretraining():
    card = backbone_card("swinv2-l", {"window_size": 16})
    assert card.windows == ((16, 16),) * 4
    assert card.pretrained_windows == backbone_card("swinv2-l").windows
    assert backbone_card("swinv2-t", {"img_size": 512, "window_size": [16, 16, 16, 8]}).windows[3] == (8, 8)


def test_the_giant_has_three_billion_parameters():
    """2997.5M with depths 2, 2, 42, 4; timm's own entry has 2594.7M."""
    with torch.device("meta"):
        trunk = build_trunk(backbone_card("swinv2-g"))
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 2_997_525_696


@pytest.mark.parametrize(
    ("model", "millions"),
    [("swinv2-t", 27.578), ("swinv2-s", 48.959), ("swinv2-b", 86.894), ("swinv2-l", 195.203)],
)
def test_parameter_counts(model, millions):
    with torch.device("meta"):
        trunk = build_trunk(backbone_card(model))
    assert round(sum(parameter.numel() for parameter in trunk.parameters()) / 1e6, 3) == millions


def test_the_nano_fits_four_megabytes_in_float16():
    with torch.device("meta"):
        trunk = build_trunk(backbone_card("swinv2-nano"))
    assert 2 * sum(parameter.numel() for parameter in trunk.parameters()) < 4 << 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backbone_card("swinv2-x"), "swinv2-t, swinv2-s.*timm:<id>"),
        (lambda: backbone_card("timm:swinv2_tiny"), "similar: swinv2_"),
        (
            lambda: backbone_card("swinv2-t", levels=["p4", "p6"]),
            "no level p6; it has p2, p3, p4, p5, p5n, s<",
        ),
        (lambda: backbone_card("swinv2-t", {"depth": 3}), r'"depth": 3.*unexpected keyword'),
        (lambda: backbone_card("swinv2-t", {"drop_path_rate": 0.3}), "fixed for every frozen backbone"),
        (lambda: backbone_card("swinv2-t", {"window_size": [8, 8]}), "window_size"),
        (
            lambda: backbone_card("timm:pit_b_224"),
            r"no feature pyramid: .* \[7, 14, 28\]",
        ),
        (lambda: backbone_card("timm:resnet18.nope"), "no tag 'nope' of resnet18; available: a1_in1k"),
        (lambda: backbone_card("timm:"), "has no model ''"),
        (lambda: backbone_card("timm:hf-hub:timm/resnet18"), "expected the name of one of timm's models"),
        (lambda: backbone_card("timm:local-dir:/tmp"), "expected the name of one of timm's models"),
        (lambda: backbone_card("timm:resnet18", {"block": "x"}), "cannot be built with"),
        (lambda: backbone_card("timm:resnet18", {"block_args": {"a": 1}}), "cannot be built with"),
        (lambda: backbone_card("swinv2-nano", {"depths": [2, 2]}), "cannot be built with.*4"),
        (lambda: backbone_card("swinv2-nano", {"embed_dim": -3}), "cannot be built with"),
        (lambda: backbone_card("swinv2-nano", {"embed_dim": "x"}), "cannot be built with"),
        (lambda: backbone_card("swinv2-nano", {"img_size": 0}), "cannot be built with"),
        (lambda: backbone_card("swinv2-nano", {"window_size": 0}), "cannot be built with.*positive"),
        (lambda: backbone_card("swinv2-nano", {"num_heads": [1, 2, 4]}), "cannot be built with"),
        (lambda: backbone_card("swinv2-nano", {"num_heads": [1, 2, 4, 7]}), "192 channels, which 7 heads"),
        (lambda: backbone_card("timm:resnet18", {"in_chans": 1}), "in_chans: cannot be set.*RGB"),
        (lambda: backbone_card("timm:resnet18", {"checkpoint_path": "a.pth"}), "named by --weights"),
        (lambda: backbone_card("timm:resnet18", {"pretrained_cfg": {"mean": [1]}}), "named by --weights"),
        (
            lambda: load_backbone(backbone_card("timm:levit_128s"), "random:0")(*images(1, (256, 256))),
            r"does not take images of 256x256 px.*--model-args\.img_size",
        ),
        (
            lambda: load_backbone(backbone_card("swinv2-nano"), "random:0", precision="int8"),
            "fp32, fp16, bf16",
        ),
    ],
)
def test_bad_names_list_the_valid_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. Of the allocated memory 1 GiB"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["allocator", "CUDA", "cuBLAS"],
)
@pytest.mark.parametrize("model", ["swinv2-nano", "timm:resnet18"])
def test_a_backbone_that_does_not_fit_the_device_says_what_to_do(model, error, monkeypatch):
    def full(*_):
        raise error

    for name in ("fit_steps", "fit_whole"):
        monkeypatch.setattr(f"extract.backbones.frozen.{name}", full)
    with pytest.raises(BackboneTooLarge, match=f"^{model} does not fit the free memory of cpu") as caught:
        load_backbone(backbone_card(model), "random:0")
    text = str(caught.value)
    assert "CUDA" in text and "Of the allocated" not in text and "elsewhere" not in text
    assert "a smaller backbone, or --device cpu" in text


def test_other_errors_of_loading_pass_unchanged(monkeypatch):
    def fail(*_):
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr("extract.backbones.frozen.fit_steps", fail)
    with pytest.raises(RuntimeError, match=r"^device-side assert triggered$"):
        load_backbone(backbone_card("swinv2-nano"), "random:0")


def test_the_giant_without_weights_says_what_to_pass():
    with pytest.raises(WeightsUnavailable, match=r"WEIGHTS=<path>.*sharded safetensors.*never published"):
        load_backbone(backbone_card("swinv2-g"))


def test_a_hub_model_without_network_says_what_to_pass(monkeypatch):
    def unreachable(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    monkeypatch.setattr("extract.backbones.hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsUnavailable, match=r"huggingface.co cannot be reached.*WEIGHTS=<path>"):
        load_backbone(backbone_card("swinv2-l"))


@pytest.mark.parametrize("case", SIX_BACKBONES, ids=names)
def test_levels_have_the_shapes_of_the_card(case):
    card = backbone_card(*case)
    levels = load_backbone(card, "random:0")(*images(2, (96, 160)))
    assert tuple(levels) == card.pyramid.names
    for level in card.pyramid:
        expected = (2, level.cells(96), level.cells(160), level.channels)
        assert levels[level.name].shape == expected and levels[level.name].dtype == torch.float32
        assert levels[level.name].isfinite().all() and levels[level.name].std() > 0.1


@pytest.mark.parametrize("case", SIX_BACKBONES, ids=names)
def test_a_row_has_the_same_bytes_in_any_batch(case):
    backbone = load_backbone(backbone_card(*case), "random:0")
    pixels, valid = images(5, (96, 128))
    valid[1] = torch.tensor([77, 101])
    together = backbone(pixels, valid)
    others = torch.tensor([4, 1, 0])
    for name, rows in backbone(pixels[others], valid[others]).items():
        assert torch.equal(rows, together[name][others])
    for name, row in backbone(pixels[1:2], valid[1:2]).items():
        assert torch.equal(row, together[name][1:2])


@pytest.mark.parametrize("count", [3, 1], ids=["three images", "one image, shared by idle threads"])
@pytest.mark.parametrize("case", SIX_BACKBONES, ids=names)
def test_a_row_has_the_same_bytes_for_any_thread_count(case, count):
    backbone, batch = load_backbone(backbone_card(*case), "random:0"), images(count, (128, 160))
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(backbone(*batch))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name])
        assert torch.equal(results[0][name], results[2][name])


@pytest.mark.parametrize("case", [("swinv2-t", SMALL), ("timm:convnext_atto",)], ids=names)
def test_tf32_settings_of_the_process_do_not_change_a_row(case):
    """Training scripts set it; processors with bfloat16 instructions then use them for float32."""
    backbone, batch = load_backbone(backbone_card(*case), "random:0"), images(1, (128, 160))
    expected = backbone(*batch)
    torch.set_float32_matmul_precision("medium")
    try:
        assert all(torch.equal(level, expected[name]) for name, level in backbone(*batch).items())
        assert torch.get_float32_matmul_precision() == "medium", "what the process chose is left alone"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("case", SIX_BACKBONES, ids=names)
def test_fewer_levels_have_the_same_bytes(case):
    batch = images(1, (64, 96))
    whole = load_backbone(backbone_card(*case), "random:0")(*batch)
    part = load_backbone(backbone_card(*case, levels=["p2", "p3"]), "random:0")(*batch)
    assert tuple(part) == ("p2", "p3")
    assert all(torch.equal(part[name], whole[name]) for name in part)


def test_shallow_levels_compute_no_deep_stage():
    backbone = load_backbone(backbone_card("swinv2-t", SMALL, levels=["p2", "p3"]), "random:0")
    assert [ends for ends in backbone.network.ends if ends] == [1, 2]
    calls = []
    features = load_backbone(backbone_card("timm:convnext_atto", levels=["p3"]), "random:0")
    for number, stage in enumerate(features.network.trunk.stages, start=1):
        stage.register_forward_hook(lambda *_, number=number: calls.append(number))
    features(*images(1, (64, 64)))
    assert calls == [1, 2]


def test_what_the_padding_holds_does_not_matter():
    backbone = load_backbone(backbone_card("swinv2-nano"), "random:0")
    pixels, _ = images(1, (96, 128))
    valid = torch.tensor([[70, 90]])
    changed = pixels.clone()
    changed[:, 70:], changed[:, :, 90:] = 255, 7
    before, after = backbone(pixels, valid), backbone(changed, valid)
    assert all(torch.equal(before[name], after[name]) for name in before)
    changed[0, 69, 89] += 1
    assert not torch.equal(backbone(changed, valid)["p2"], before["p2"])


def test_pixels_are_normalised_before_the_padding_is_zeroed():
    backbone = load_backbone(backbone_card("swinv2-nano"), "random:0")
    pixels = torch.full((1, 32, 64, 3), 128, dtype=torch.uint8)
    x = backbone.normalise(pixels, torch.tensor([[20, 33]]))
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(x[0, :20, :33], expected.expand(20, 33, 3), atol=1e-6)
    assert not x[0, 20:].any() and not x[0, :, 33:].any()


@pytest.mark.parametrize("model", ["swinv2-t", "timm:swin_tiny_patch4_window7_224"])
def test_p5n_is_p5_after_the_final_norm(model):
    card = backbone_card(model, SMALL, levels=["p5", "p5n"])
    levels = load_backbone(card, "random:0")(*images(1, (64, 64)))
    norm = nn.LayerNorm(card.pyramid["p5"].channels)
    norm.load_state_dict(timm_trunk(card).norm.state_dict())
    with torch.inference_mode():
        assert worst_error(levels["p5n"], norm(levels["p5"])) < 1e-6
    assert not torch.equal(levels["p5n"], levels["p5"])


@pytest.mark.parametrize("case", SIX_BACKBONES, ids=names)
def test_levels_are_timms_own(case):
    """Folding, and reading stages one by one, change nothing beyond the order of summation."""
    card = backbone_card(*case)
    backbone, batch = load_backbone(card, "random:0"), images(1, (92, 140))
    theirs = timm_levels(timm_trunk(card), backbone.normalise(*batch))
    ours = backbone(*batch).values()
    for level, expected in zip(ours, theirs[-len(card.pyramid) :], strict=True):
        assert worst_error(level, expected) < 1e-5


def test_identity_names_what_decides_the_numbers():
    card = backbone_card("swinv2-t", SMALL)
    identity = load_backbone(card, "random:0").identity()
    assert identity == card.identity(weights_sha256=weights_sha256(card, "random:0"), precision="fp32")
    assert identity["args"] == SMALL and identity["windows"] == [[8, 8]] * 4
    others = [
        backbone_card("swinv2-t", {**SMALL, "window_size": 16}).identity(
            weights_sha256="a" * 64, precision="fp32"
        ),
        card.identity(weights_sha256="a" * 64, precision="fp16"),
        card.identity(weights_sha256="b" * 64, precision="fp32"),
    ]
    mine = card.identity(weights_sha256="a" * 64, precision="fp32")
    assert all(mine != other for other in others)


def test_a_frozen_backbone_leaves_nothing_in_a_checkpoint_and_trains_nothing():
    backbone = load_backbone(backbone_card("swinv2-t", SMALL), "random:0")
    assert not backbone.state_dict() and not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.training and not next(iter(backbone(*images(1, (32, 32))).values())).requires_grad
