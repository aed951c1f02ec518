"""UPerNet against transformers' on equal weights, its sizes and its settings."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from heads import build_head
from heads.contract import HeadError
from heads.segmentation.upernet import UPerNet
from tests.heads.pyramids import (
    SWINV2_CHANNELS,
    parameter_count,
    pyramid_of,
    random_features,
    random_labels,
)

WIDTH, CLASSES = 16, 7


def redraw(module: nn.Module, seed: int = 5) -> None:
    """Random parameters and running statistics; the initial ones would hide a swapped pair of norms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if name.endswith("running_var") else -0.3
                value.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) + low)


def block(name: str) -> dict[str, str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{name}.conv.weight": f"{name}.conv.weight"} | {
        f"{name}.norm.{field}": f"{name}.batch_norm.{field}" for field in norm
    }


def their_names(ours: UPerNet) -> dict[str, str]:
    """Our parameter and buffer names -> transformers'."""
    blocks = {
        "pooling.bottleneck": "bottleneck",
        "bottleneck": "fpn_bottleneck",
        **{f"pooling.branches.{i}": f"psp_modules.{i}.1" for i in range(4)},
        **{f"laterals.{i}": f"lateral_convs.{i}" for i in range(3)},
        **{f"merge.outputs.{i}": f"fpn_convs.{i}" for i in range(3)},
    }
    names = {"classifier.weight": "classifier.weight", "classifier.bias": "classifier.bias"}
    for mine, theirs in blocks.items():
        names |= {mine + a.removeprefix("x"): theirs + b.removeprefix("x") for a, b in block("x").items()}
    return names


def their_head(channels: list[int], width: int, classes: int, kind: str = "UperNetHead") -> nn.Module:
    upernet = pytest.importorskip("transformers.models.upernet.modeling_upernet")
    config = SimpleNamespace(
        pool_scales=[1, 2, 3, 6],
        hidden_size=width,
        num_labels=classes,
        auxiliary_in_channels=None,
        auxiliary_channels=width // 2,
        auxiliary_num_convs=1,
        auxiliary_concat_input=False,
    )
    return getattr(upernet, kind)(config, in_channels=channels)


@pytest.mark.oracle
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("padded_hw", [(160, 224), (100, 36)])
def test_upernet_equals_transformers(padded_hw: tuple[int, int], train: bool) -> None:
    pyramid = pyramid_of(8)
    theirs = their_head([level.channels for level in pyramid], WIDTH, CLASSES).double().train(train)
    redraw(theirs)
    ours = build_head("fpn", "segmentation", pyramid, CLASSES, width=WIDTH, input_norm="none", dropout=0.0)
    ours.double().train(train)
    state = theirs.state_dict()
    names = their_names(ours)
    ours.load_state_dict({mine: state[name] for mine, name in names.items()})

    features = {name: x.double() for name, x in random_features(pyramid, 2, padded_hw).items()}
    grads, scores = [], []
    for call in (
        lambda maps: ours(dict(zip(features, maps, strict=True)), [padded_hw] * 2),
        theirs,
    ):
        maps = [x.clone().requires_grad_() for x in features.values()]
        out = call(maps)
        (out * out.detach().cos()).sum().backward()
        scores.append(out)
        grads.append([x.grad for x in maps])
    torch.testing.assert_close(*scores, rtol=1e-10, atol=1e-10)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    mine, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for a, b in names.items():
        if a in mine:
            torch.testing.assert_close(mine[a].grad, other[b].grad, rtol=1e-8, atol=1e-8)
        else:  # the running statistics are updated alike
            torch.testing.assert_close(ours.state_dict()[a], theirs.state_dict()[b])


@pytest.mark.oracle
def test_auxiliary_head_equals_transformers() -> None:
    pyramid = pyramid_of(8)
    theirs = (
        their_head([level.channels for level in pyramid], WIDTH, CLASSES, "UperNetFCNHead").double().eval()
    )
    redraw(theirs)
    ours = build_head(
        "fpn", "segmentation", pyramid, CLASSES, width=WIDTH, input_norm="none", auxiliary=True
    ).auxiliary
    ours.double().eval()
    state = theirs.state_dict()
    names = {"classifier.weight": "classifier.weight", "classifier.bias": "classifier.bias"}
    names |= {a: b.replace("conv.", "convs.0.", 1) for a, b in block("conv").items()}
    ours.load_state_dict({mine: state[name] for mine, name in names.items()})
    features = {name: x.double() for name, x in random_features(pyramid, 2, (64, 96)).items()}
    torch.testing.assert_close(ours(features["p4"]), theirs(list(features.values())), rtol=1e-10, atol=1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize(("model", "count"), [("b", 33_315_990), ("l", 36_953_238)])
def test_parameter_count_equals_transformers(model: str, count: int) -> None:
    with torch.device("meta"):
        theirs = their_head([SWINV2_CHANNELS[model] << i for i in range(4)], 512, 150)
    assert parameter_count(theirs) == count


# name, model -> without input and BiFPN norms, as shipped, and the first as printed, in millions.
PARAMETERS = {
    ("fpn", "b"): (33_315_990, 33_319_830, None),
    ("fpn", "l"): (36_953_238, 36_958_998, None),
    ("bifpn1", "b"): (24_957_348, 24_964_772, 25.0),
    ("bifpn5", "b"): (39_119_324, 39_139_036, 39.1),
    ("bifpn9", "t"): (51_520_020, 51_551_060, None),
    ("bifpn5", "g"): (60_254_684, 60_285_916, None),
    ("linear", "b"): (288_150, 291_990, None),
}


@pytest.mark.parametrize(("name", "model"), PARAMETERS)
def test_parameters(name: str, model: str) -> None:
    pyramid = pyramid_of(SWINV2_CHANNELS[model])
    bare = {"input_norm": "none"} | ({"neck_norm": "none"} if name.startswith("bifpn") else {})
    with torch.device("meta"):
        plain = parameter_count(build_head(name, "segmentation", pyramid, 150, **bare))
        shipped = parameter_count(build_head(name, "segmentation", pyramid, 150))
    assert (plain, shipped) == PARAMETERS[name, model][:2]
    printed = PARAMETERS[name, model][2]
    assert printed is None or round(plain / 1e6, 1) == printed
    norms = 2 * sum(level.channels for level in pyramid)
    if name.startswith("bifpn"):  # a GroupNorm on six nodes a layer and on the lateral of the pooled level
        norms += 512 * (6 * int(name[5:]) + 1)
    assert shipped - plain == norms


def test_auxiliary_parameters() -> None:
    pyramid = pyramid_of(SWINV2_CHANNELS["b"])
    with torch.device("meta"):
        head = build_head("fpn", "segmentation", pyramid, 150, auxiliary=True)
    assert parameter_count(head.auxiliary) == 1_218_710
    assert build_head("fpn", "segmentation", pyramid_of(8), 3, width=8).auxiliary is None


def test_auxiliary_loss_weighs_two_fifths() -> None:
    pyramid = pyramid_of(8)
    head = build_head("fpn", "segmentation", pyramid, CLASSES, width=WIDTH, auxiliary=True, dropout=0.0)
    features, labels = random_features(pyramid, 2, (64, 64)), random_labels(2, (64, 64), CLASSES)
    losses = head.losses(features, labels, [(64, 64)] * 2)
    scores = head.auxiliary(head.input_norms[2](features["p4"]))
    fine = nn.functional.interpolate(scores, size=(64, 64), mode="bilinear", align_corners=False)
    plain = nn.functional.cross_entropy(
        fine, torch.stack([t["labels"] for t in labels]).long(), ignore_index=255
    )
    assert set(losses) == {"loss_seg", "loss_aux"}
    torch.testing.assert_close(losses["loss_aux"], 0.4 * plain)


def test_one_image_with_batch_norm_is_refused() -> None:
    pyramid = pyramid_of(8)
    features, labels = random_features(pyramid, 1, (32, 32)), random_labels(1, (32, 32), CLASSES)
    head = build_head("bifpn1", "segmentation", pyramid, CLASSES, width=WIDTH)
    with pytest.raises(HeadError, match="norm=gn"):
        head.losses(features, labels, [(32, 32)])
    with_groups = build_head("bifpn1", "segmentation", pyramid, CLASSES, width=WIDTH, norm="gn")
    assert with_groups.losses(features, labels, [(32, 32)])["loss_seg"].isfinite()
    assert head.eval().losses(features, labels, [(32, 32)])["loss_seg"].isfinite()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 15}, "even"),
        ({"width": 4}, "width is 4"),
        ({"width": "64"}, "width is '64'"),
        ({"norm": "ln"}, "bn, gn, none"),
        ({"neck_norm": "bn"}, "gn, none"),
        ({"input_norm": "batch"}, "ln, ln_no_affine, none"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"auxiliary": "yes"}, "auxiliary is 'yes'"),
        ({"neck_depth": -1}, "neck_depth is -1"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        build_head("fpn", "segmentation", pyramid_of(8), CLASSES, **settings)


def test_group_norm_shrinks_with_the_width() -> None:
    """Every width builds, and no group has fewer than four channels."""
    for width in (8, 10, 24, 64, 100, 512):
        head = build_head("bifpn1", "segmentation", pyramid_of(8), CLASSES, width=width, norm="gn")
        groups = [module for module in head.modules() if isinstance(module, nn.GroupNorm)]
        assert all(module.num_channels // module.num_groups >= 4 for module in groups)
        assert width != 512 or all(module.num_groups == 32 for module in groups)


def _mean_std(x: Tensor) -> tuple[float, float]:
    return float(x.mean()), float(x.std())


def test_initial_weights_follow_mmseg() -> None:
    head = build_head("bifpn1", "segmentation", pyramid_of(32), 150, width=256, seed=0)
    mean, std = _mean_std(head.classifier.weight.detach())
    assert abs(mean) < 1e-3 and abs(std - 0.01) < 5e-4
    weight = head.bottleneck.conv.weight.detach()
    assert abs(_mean_std(weight)[1] - (2 / (256 * 9)) ** 0.5) < 5e-4
    biases = [value for name, value in head.state_dict().items() if name.endswith("conv.bias")]
    assert biases and all(torch.equal(bias, torch.zeros_like(bias)) for bias in biases)
