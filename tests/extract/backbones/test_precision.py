"""Half precision within its limit, also with sharp attention, and float32 where it would exceed it."""

import logging
import math

import pytest
import torch
from torch import Tensor

from extract.backbones.frozen import FrozenBackbone
from extract.backbones.loading import backbone_card
from extract.backbones.precision import LIMIT
from extract.backbones.weights import Weights, get_weights
from extract.swin.timm_swin import probe
from tests.extract.backbones.small import SMALL, SMALL_GIANT, images

CARDS = {"v2": ("swinv2-t", SMALL), "giant": ("swinv2-g", {**SMALL_GIANT, "window_size": [8, 8, 8, 4]})}


def weights_of(card, *, logit_scale: float | None = None, bias: float = 1, norms: float = 1) -> Weights:
    """Random weights; log logit scales set, the bias network's and the res-post-norms' weights multiplied."""
    drawn = get_weights(card, "random:0", probe(card.timm_id, card.constructor_args)).tensors

    def changed(name: str, tensor: Tensor) -> Tensor:
        if "logit_scale" in name and logit_scale is not None:
            return torch.full_like(tensor, logit_scale)
        if name.endswith(("cpb_mlp.2.weight", "meta_mlp.fc2.weight")):
            return tensor * bias
        return tensor * norms if name.endswith(("norm1.weight", "norm2.weight")) else tensor

    return Weights.of({name: changed(name, tensor) for name, tensor in drawn.items()})


SHARP = {"logit_scale": math.log(100) + 1, "bias": 30}
"""Scales beyond the clamp; biases between 0 and 16 for V2, -16 and beyond to 16 and beyond for the giant."""


def frozen(card, weights: Weights, precision: str) -> FrozenBackbone:
    return FrozenBackbone(card, weights, device=torch.device("cpu"), precision=precision, compiled=False)


def errors(half: FrozenBackbone, exact: FrozenBackbone) -> list[float]:
    """rms of the difference over rms, each level, over noise and smooth images of two sizes."""
    worst = [0.0] * len(exact.pyramid)
    for seed, hw in enumerate([(128, 160), (96, 224)]):
        noise, valid = images(1, hw, seed)
        smooth = noise[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
        for pixels in (noise, smooth):
            pairs = zip(half(pixels, valid).values(), exact(pixels, valid).values(), strict=True)
            worst = [max(w, float((a - b).norm() / b.norm())) for w, (a, b) in zip(worst, pairs, strict=True)]
    return worst


@pytest.mark.parametrize("case", CARDS)
def test_float16_is_within_its_limit_throughout(case):
    card = backbone_card(*CARDS[case])
    weights = weights_of(card)
    half = frozen(card, weights, "fp16")
    assert half.precision == "fp16"
    assert 1e-5 < max(errors(half, frozen(card, weights, "fp32"))) < LIMIT


@pytest.mark.parametrize("norms", [1, 0.3, 0.1])
@pytest.mark.parametrize("case", CARDS)
def test_float16_is_within_its_limit_with_sharp_logits_and_wide_biases(case, norms):
    card = backbone_card(*CARDS[case])
    weights = weights_of(card, **SHARP, norms=norms)
    assert max(errors(frozen(card, weights, "fp16"), frozen(card, weights, "fp32"))) < LIMIT


def test_weights_too_sharp_for_float16_warn_and_change_the_identity(caplog):
    card = backbone_card(*CARDS["v2"])
    with caplog.at_level(logging.WARNING, "extract.backbones.precision"):
        half = frozen(card, weights_of(card, **SHARP), "fp16")
    assert half.precision.startswith("fp16-after-")
    assert half.identity()["precision"] == half.precision
    assert "swinv2-t in float16 would err by stage 1" in caplog.text


def test_bfloat16_is_used_as_asked_and_logs_its_error(caplog):
    card = backbone_card(*CARDS["v2"])
    weights = weights_of(card)
    with caplog.at_level(logging.INFO, "extract.backbones.precision"):
        half = frozen(card, weights, "bf16")
    assert half.precision == "bf16" and "in bfloat16 errs by stage 1 0." in caplog.text
    assert LIMIT < max(errors(half, frozen(card, weights, "fp32"))) < 0.02


def test_the_norm_of_a_zero_query_is_not_zero_in_float16():
    """A black patch with biases of zero has zero queries and keys."""
    card = backbone_card(*CARDS["v2"])
    tensors = {
        name: torch.zeros_like(t) if name.endswith(("q_bias", "patch_embed.norm.bias")) else t
        for name, t in weights_of(card).tensors.items()
    }
    levels = frozen(card, Weights.of(tensors), "fp16")(
        torch.zeros(1, 64, 64, 3).byte(), torch.tensor([[0, 0]])
    )
    assert all(level.isfinite().all() for level in levels.values())


OTHERS = {
    "timm:convnext_atto": {},
    "timm:swin_tiny_patch4_window7_224": {
        "embed_dim": 24,
        "depths": [1, 2, 1, 1],
        "num_heads": [1, 2, 4, 8],
    },
}


@pytest.mark.parametrize("model", OTHERS)
def test_other_models_run_under_autocast_and_log_their_error(model, caplog):
    card = backbone_card(model, OTHERS[model])
    weights = weights_of(card)
    with caplog.at_level(logging.INFO, "extract.backbones.precision"):
        half = frozen(card, weights, "bf16")
    assert half.precision == "bf16" and f"{model} in bfloat16 errs by stage 1 0." in caplog.text
    assert 0 < max(errors(half, frozen(card, weights, "fp32"))) < 0.1


@pytest.mark.parametrize("model", OTHERS)
def test_other_models_keep_float16_within_its_limit_or_run_in_float32(model, caplog):
    card = backbone_card(model, OTHERS[model])
    weights = weights_of(card)
    half, exact = frozen(card, weights, "fp16"), frozen(card, weights, "fp32")
    assert half.precision in ("fp16", "fp32")
    assert max(errors(half, exact)) < LIMIT
    beyond = Weights.of(
        {
            name: tensor * (3e4 if name.startswith(("stem.0.weight", "patch_embed.proj.weight")) else 1)
            for name, tensor in weights.tensors.items()
        }
    )
    with caplog.at_level(logging.WARNING, "extract.backbones.precision"):
        half = frozen(card, beyond, "fp16")
    assert half.precision == "fp32" and half.identity()["precision"] == "fp32"
    assert f"{model} in float16 would err by stage 1" in caplog.text and "it runs in float32" in caplog.text
    assert max(errors(half, frozen(card, beyond, "fp32"))) == 0


def test_a_model_of_a_fixed_size_is_tried_at_its_own(caplog):
    card = backbone_card("timm:levit_128s")
    with caplog.at_level(logging.INFO, "extract.backbones.precision"):
        half = frozen(card, weights_of(card), "bf16")
    assert half.precision == "bf16" and "in bfloat16 errs by" in caplog.text
