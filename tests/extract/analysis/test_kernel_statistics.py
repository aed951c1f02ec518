"""Kernels as attention: closed forms, KL against loops, layers and strides of real architectures."""

import math

import pytest
import torch

from extract.analysis.kernel_statistics import (
    DepthwiseLayer,
    depthwise_layers,
    kernel_statistics,
    layers_of_state,
)


def test_a_uniform_kernel_and_one_at_its_corner() -> None:
    weight = torch.ones(2, 5, 5)
    weight[1] = 0
    weight[1, 0, 0] = -3.0
    found = kernel_statistics(DepthwiseLayer("a", weight, 8.0))
    mean = sum(math.hypot(y - 2, x - 2) for y in range(5) for x in range(5)) / 25
    assert found.distance_px == pytest.approx([8 * mean, 8 * math.hypot(2, 2)], abs=1e-6)
    assert found.entropy_nats == pytest.approx([math.log(25), 0.0], abs=1e-8)
    assert found.entropy_limit == pytest.approx(math.log(25))


@pytest.mark.parametrize("sign", ["abs", "square", "softmax"])
def test_kl_linear_in_channels_equals_a_loop_over_pairs(sign: str) -> None:
    weight = torch.randn(6, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = kernel_statistics(DepthwiseLayer("a", weight, 4.0), sign)  # type: ignore[arg-type]
    flat = weight.flatten(1)
    p = {"abs": flat.abs(), "square": flat**2, "softmax": flat.softmax(1)}[sign]
    p = p / p.sum(1, keepdim=True)
    expected = [
        sum(float((p[c] * (p[c] / p[j]).log()).sum()) for j in range(6) if j != c) / 5 for c in range(6)
    ]
    assert found.kl_nats == pytest.approx(expected, abs=1e-9)


def test_layers_of_convnext_with_their_strides() -> None:
    import timm

    trunk = timm.create_model("convnext_atto", num_classes=0)
    layers = depthwise_layers(trunk)
    assert [layer.weight_Cyx.shape[1:] for layer in layers] == [(7, 7)] * 12
    assert [layer.stride_px for layer in layers] == [4.0] * 2 + [8.0] * 2 + [16.0] * 6 + [32.0] * 2
    assert torch.equal(layers[0].weight_Cyx, trunk.stages[0].blocks[0].conv_dw.weight[:, 0])


def test_merged_kernels_of_replknet_and_others() -> None:
    name = "stages.2.blocks.0.large_kernel.lkb_reparam.weight"
    (layer,) = layers_of_state({name: torch.ones(4, 1, 31, 31), "stem.weight": torch.ones(3)})
    assert (layer.name, layer.stride_px, layer.weight_Cyx.shape) == (name, 16.0, (4, 31, 31))
    with pytest.raises(ValueError, match="not merged"):
        layers_of_state({"stages.0.blocks.0.large_kernel.lkb_origin.conv.weight": torch.ones(4, 1, 31, 31)})
    with pytest.raises(ValueError, match="no depth-wise kernels"):
        layers_of_state({"a": torch.ones(1)})
