"""The linear head against its definition: resize, concatenate, one 1x1."""

import pytest
import torch
import torch.nn.functional as F

from heads import build_head
from heads.necks.input_norm import ChannelNorm, build_input_norms
from tests.heads.pyramids import pyramid_of, random_features

CLASSES = 5


@pytest.mark.parametrize("padded_hw", [(160, 224), (100, 36)])
def test_equals_resize_first(padded_hw: tuple[int, int]) -> None:
    pyramid = pyramid_of(8)
    head = build_head("linear", "segmentation", pyramid, CLASSES)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    features = random_features(pyramid, 2, padded_hw)
    mine = {name: x.clone().requires_grad_() for name, x in features.items()}
    defined = {name: x.clone().requires_grad_() for name, x in features.items()}
    grid = features["p2"].shape[2:]
    resized = [
        F.interpolate(norm(x), size=grid, mode="bilinear", align_corners=False)
        for norm, x in zip(head.input_norms, defined.values(), strict=True)
    ]
    expected = head.classifier(torch.cat(resized, dim=1))
    scores = head(mine, [padded_hw] * 2)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    for out, inputs in ((scores, mine), (expected, defined)):
        (out * expected.detach().cos()).sum().backward(inputs=list(inputs.values()))
    for name in features:
        torch.testing.assert_close(mine[name].grad, defined[name].grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_channel_norm_equals_layer_norm_of_each_cell(memory_format: torch.memory_format) -> None:
    norm = ChannelNorm(6)
    x = torch.randn(2, 6, 3, 4).mul_(30).add_(5).contiguous(memory_format=memory_format)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(6))
        norm.bias.copy_(torch.rand(6))
    centred = x - x.mean(1, keepdim=True)
    expected = centred / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)
    assert norm(x).is_contiguous(memory_format=torch.channels_last)


def test_channel_norm_stays_in_fp32_under_autocast() -> None:
    x = torch.randn(2, 6, 3, 4) * 300
    norm = ChannelNorm(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(x), norm(x).float())
        low = norm(x.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, norm(x.bfloat16().float()))


def test_input_norm_kinds() -> None:
    x = torch.randn(1, 6, 3, 4)
    with_affine, without, nothing = (
        build_input_norms(kind, [6])[0] for kind in ("ln", "ln_no_affine", "none")
    )
    assert torch.equal(with_affine(x), without(x)) and torch.equal(nothing(x), x)
    assert [len(list(norm.parameters())) for norm in (with_affine, without, nothing)] == [2, 0, 0]
