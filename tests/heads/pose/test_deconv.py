"""Heads of transposed convolutions: sizes, loss, and transformers' ViTPose decoder on equal weights."""

import pytest
import torch

from heads import build_head, head_settings
from heads.errors import HeadError
from heads.pose.heatmaps import target_heatmaps
from stores.pyramid import Level, PyramidSpec
from tests.heads.pyramids import parameter_count, plain_pyramid, pyramid_of, random_features, random_keypoints

CHANNELS = {"t": 768, "b": 1024, "l": 1536}


def last_map(channels: int, stride_px: int = 32) -> PyramidSpec:
    return PyramidSpec((Level(name="p5", stride_px=stride_px, channels=channels, stage=4),))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("pose-deconv4x256", {"t": 5_248_785, "b": 6_297_361, "l": 8_394_513}),
        ("pose-deconv2x32", {"t": 107_249, "b": 140_017, "l": 205_553}),
    ],
)
def test_parameters(name: str, parameters: dict[str, int]) -> None:
    """Those of the paper's backbones, without the norm of the frozen map and with it."""
    for size, expected in parameters.items():
        channels = CHANNELS[size]
        with torch.device("meta"):
            bare = build_head(name, "pose", last_map(channels), 17, input_norm="none")
            shipped = build_head(name, "pose", last_map(channels), 17)
        assert parameter_count(bare) == expected and parameter_count(shipped) == expected + 2 * channels


@pytest.mark.parametrize(("stride_px", "cells"), [(32, 64), (16, 64), (14, 72)])
def test_heatmaps_have_about_a_quarter_of_the_sides(stride_px: int, cells: int) -> None:
    side = 256 if stride_px != 14 else 252
    pyramid = last_map(8, stride_px)
    head = build_head("pose-deconv2x32", "pose", pyramid, 3, width=4).eval()
    (found,) = head.predict(random_features(pyramid, 1, (side, side)), [(side, side)], [(side, side)])
    assert found.shape == (3, cells, cells)


def test_reads_the_last_map_alone() -> None:
    pyramid = PyramidSpec((*pyramid_of(8), *plain_pyramid(8, 2)))
    assert build_head("pose-deconv2x32", "pose", pyramid_of(8), 3).levels == ("p5",)
    assert len(build_head("pose-deconv2x32", "pose", pyramid, 3).levels) == 1


def test_loss_is_of_all_values_and_leaves_out_what_is_not_visible() -> None:
    pyramid, hw = last_map(8), (64, 96)
    head = build_head("pose-deconv2x32", "pose", pyramid, 5, width=4, seed=0)
    features, targets = random_features(pyramid, 2, hw), random_keypoints([hw, hw], 5)
    losses = head.losses(features, targets, [hw, hw])
    found = head(features, [hw, hw]).detach()
    keypoints = torch.stack([target["keypoints"] for target in targets])
    wanted, weights = target_heatmaps(keypoints, hw, (16, 24))
    by_hand = 0.0
    for row in range(2):
        for number in range(5):
            if weights[row, number]:
                by_hand += float(((found[row, number] - wanted[row, number]) ** 2).sum())
    assert losses["loss_heatmap"].item() == pytest.approx(by_hand / (2 * 5 * 16 * 24), rel=1e-4)
    with pytest.raises(HeadError, match=r"expected \(5, 3\)"):
        head.losses(features, random_keypoints([hw, hw], 4), [hw, hw])
    with pytest.raises(HeadError, match="kernel is '3', expected one of 2, 4"):
        build_head("pose-deconv2x32", "pose", pyramid, 5, kernel=3)


@pytest.mark.ci
@pytest.mark.oracle
def test_vitpose_decoder_on_equal_weights() -> None:
    """transformers' classic decoder is this head over a stride of 16, without the norm before it."""
    vitpose = pytest.importorskip("transformers.models.vitpose.modeling_vitpose")
    from transformers import VitPoseBackboneConfig, VitPoseConfig

    backbone = VitPoseBackboneConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=False)
    torch.manual_seed(0)
    theirs = vitpose.VitPoseClassicDecoder(config).eval()
    ours = build_head("pose-deconv4x256", "pose", last_map(32, 16), 17, input_norm="none").eval()
    state = theirs.state_dict()
    for norm in ("batchnorm1", "batchnorm2"):
        for name, scale in (("weight", 1.0), ("bias", 0.3), ("running_mean", 0.3)):
            state[f"{norm}.{name}"] = torch.randn_like(state[f"{norm}.{name}"]) * scale
        state[f"{norm}.running_var"] = torch.rand_like(state[f"{norm}.running_var"]) + 0.5
    theirs.load_state_dict(state)
    renamed = {"heatmaps.weight": state["conv.weight"], "heatmaps.bias": state["conv.bias"]}
    for number in range(2):
        renamed[f"deconvs.{number}.0.weight"] = state[f"deconv{number + 1}.weight"]
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            renamed[f"deconvs.{number}.1.{name}"] = state[f"batchnorm{number + 1}.{name}"]
    ours.load_state_dict(renamed)
    features = torch.randn(2, 32, 16, 12)
    with torch.no_grad():
        expected = theirs(features)
    found = torch.stack(ours.predict({"p5": features}, [(256, 192)] * 2, [(256, 192)] * 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert head_settings("pose-deconv4x256", "pose").kernel == 4
