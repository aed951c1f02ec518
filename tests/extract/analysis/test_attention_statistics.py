"""Attention statistics: closed forms, loops in float64, transformers' attentions, and the block itself."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.analysis.attention_statistics import attention_sums, grid_distances_px
from extract.analysis.block_visits import block_modules, visit_blocks
from extract.analysis.global_attention import (
    NoGlobalAttention,
    attention_logits,
    check_global,
    swin_v1_attention_sums,
    token_attention_sums,
)
from extract.analysis.window_attention import attention_branch, block_plan, window_attention_sums
from extract.backbones.loading import FrozenBackbone, backbone_card, load_backbone
from extract.swin.attention import leave
from extract.swin.block import FoldedBlock
from extract.swin.window_rule import fit_windows
from tests.extract.backbones.small import SMALL, images, timm_trunk
from tests.extract.swin.oracle import build_oracle

MODEL = "swinv2-t"


@pytest.mark.parametrize(
    ("side", "stride_px", "expected"),
    [(8, 4, 16.5459), (8, 32, 132.3674), (12, 4, 24.9382), (14, 16, 116.4922), (7, 32, 115.5029)],
)
def test_uniform_attention_has_the_mean_distance_of_its_window(
    side: int, stride_px: int, expected: float
) -> None:
    tokens = side * side
    logits = torch.zeros(1, 3, tokens, tokens)
    found = attention_sums(
        logits, torch.ones(1, tokens, tokens, dtype=torch.bool), grid_distances_px(side, side, stride_px)
    ).means()
    assert found.distance_px == pytest.approx([expected] * 3, abs=1e-4)
    assert found.entropy_nats == pytest.approx([math.log(tokens)] * 3)
    assert found.relative_entropy == pytest.approx([1.0] * 3)
    assert found.kl_nats == pytest.approx([0.0] * 3, abs=1e-12)
    assert found.leak == pytest.approx([0.0] * 3, abs=1e-12)


def test_attention_on_one_key_at_a_distance() -> None:
    logits = torch.full((1, 1, 9, 9), -200.0)
    for query in range(9):
        logits[0, 0, query, query // 3 * 3 + (query % 3 + 1) % 3] = 200.0
    found = attention_sums(logits, torch.ones(1, 9, 9, dtype=torch.bool), grid_distances_px(3, 3, 4)).means()
    assert found.distance_px == pytest.approx([(4 + 4 + 8) / 3])
    assert found.entropy_nats == pytest.approx([0.0], abs=1e-12)


def test_logits_beyond_float32_keep_a_finite_divergence() -> None:
    logits = torch.stack([torch.eye(4) * 400, torch.roll(torch.eye(4), 1, 1) * 400])[None]
    found = attention_sums(logits, torch.ones(1, 4, 4, dtype=torch.bool), grid_distances_px(2, 2, 1)).means()
    assert found.kl_nats == pytest.approx([400.0, 400.0])


def _small(rule: str, hw: tuple[int, int], model: str = MODEL, **args: Any) -> FrozenBackbone:
    card = backbone_card(model, {**SMALL, **args}, window_rule=rule)
    return load_backbone(card, "random:3", compiled=False)


def _visited(backbone: FrozenBackbone, hw: tuple[int, int]) -> list[tuple[str, Any, Tensor, Tensor]]:
    found: list[tuple[str, Any, Tensor, Tensor]] = []
    visit_blocks(backbone, *images(1, hw), lambda *each: found.append(each))
    return [each for each in found if each[0] in block_modules(backbone)]


@pytest.mark.parametrize(("rule", "hw"), [("cover", (64, 96)), ("partition", (44, 60))])
def test_folded_windows_equal_a_loop_over_queries(rule: str, hw: tuple[int, int]) -> None:
    backbone = _small(rule, hw)
    for name, block, before, _ in _visited(backbone, hw)[1:6:2]:
        found = window_attention_sums(block, before, 4.0).means()
        expected = _by_loops(block, before, 4.0)
        assert found.queries == before.shape[1] * before.shape[2], name
        for mine, theirs in zip(
            (found.distance_px, found.entropy_nats, found.kl_nats, found.leak), expected, strict=True
        ):
            assert mine == pytest.approx(theirs, abs=1e-5), name


def _by_loops(block: FoldedBlock, x_1HWC: Tensor, stride_px: float) -> tuple[list[float], ...]:
    """Distance, entropy, KL and leak of each head: every query against every key of the padded map."""
    height, width = x_1HWC.shape[1:3]
    window, shift = fit_windows(block.window_rule, (height, width), block.window, block.shift)
    rows, columns = (-(-side // w) * w for side, w in zip((height, width), window, strict=True))
    padded = torch.zeros(rows, columns, x_1HWC.shape[3], dtype=torch.float64)
    padded[:height, :width] = x_1HWC[0]
    qkv = padded @ block.qkv_weight.double().T + block.qkv_bias.double()
    heads = block.heads
    q, k, _ = qkv.view(rows, columns, 3, heads, -1).unbind(2)
    q, k = torch.nn.functional.normalize(q, dim=-1), torch.nn.functional.normalize(k, dim=-1)
    q = q * block.factor_QBHTD[0, 0].double().view(heads, 1)
    sums = torch.zeros(4, heads, dtype=torch.float64)
    table, span = block.table_HR.double(), 2 * block.window[1] - 1
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    ry, rx = (y - shift[0]) % rows, (x - shift[1]) % columns  # after the roll
    # The roll wraps the first rows and columns to the end: that seam separates regions of the last windows.
    down = torch.where(ry // window[0] == rows // window[0] - 1, (y < shift[0]).long(), 2)
    across = torch.where(rx // window[1] == columns // window[1] - 1, (x < shift[1]).long(), 2)
    for a in range(height):
        for b in range(width):
            inside = (ry // window[0] == ry[a, b] // window[0]) & (rx // window[1] == rx[a, b] // window[1])
            same = ((down == down[a, b]) & (across == across[a, b]))[inside]
            offset = (ry[a, b] - ry + block.window[0] - 1) * span + rx[a, b] - rx + block.window[1] - 1
            logits_HT = torch.einsum("hd,thd->ht", q[a, b], k[inside]) + table[:, offset[inside]]
            logits_HT = logits_HT - 100.0 * ~same
            keep = same & (y < height)[inside] & (x < width)[inside]
            log_HT = logits_HT[:, keep].log_softmax(1)
            a_HT = log_HT.exp()
            sums[0] += a_HT @ (stride_px * torch.hypot((y - a).double(), (x - b).double()))[inside][keep]
            sums[1] -= (a_HT * log_HT).sum(1)
            for h in range(heads):
                others = [j for j in range(heads) if j != h]
                for other in others:
                    sums[2][h] += (a_HT[h] * (log_HT[h] - log_HT[other])).sum() / len(others)
            sums[3] += logits_HT.softmax(1)[:, ~keep].sum(1)
    means = sums / (height * width)
    return tuple(part.tolist() for part in means)


@pytest.mark.parametrize(("rule", "hw"), [("cover", (64, 160)), ("partition", (124, 156))])
def test_probabilities_times_values_give_the_blocks_own_output(rule: str, hw: tuple[int, int]) -> None:
    backbone = _small(rule, hw)
    for name, block, before, after in _visited(backbone, hw):
        plan = block_plan(block, before)
        x_NLC = before.reshape(1, -1, before.shape[3])
        in_order = torch.empty(1, len(plan.gather), x_NLC.shape[2])
        in_order[:, plan.scatter] = attention_branch(block, before).float().view(x_NLC.shape)
        # The rest of the block on our branch: its own output only where the branches are equal.
        ours = leave(x_NLC, in_order, plan.scatter, block.branch_weights)
        assert (ours.view(after.shape) - after).abs().max() / after.abs().max() < 1e-5, name


@pytest.mark.oracle
def test_windows_equal_the_attentions_of_transformers() -> None:
    backbone = _small("cover", (256, 256))
    trunk = timm_trunk(backbone.card, "random:3")
    oracle: Any = build_oracle(backbone.card, trunk.state_dict(), native_px=256)
    oracle.set_attn_implementation("eager")
    pixels, valid = images(1, (256, 256))
    x_NHWC = backbone.normalise(pixels, valid)
    with torch.inference_mode():
        theirs = oracle(x_NHWC.permute(0, 3, 1, 2), output_attentions=True).attentions
    flat = [each for stage in theirs for each in (stage if isinstance(stage, tuple) else (stage,))]
    blocks = _visited(backbone, (256, 256))
    assert len(flat) in (4, 8)
    if len(flat) == 4:  # the last block of each stage
        blocks = blocks[1::2]
    for (name, block, before, _), a_BHTT in zip(blocks, flat, strict=True):
        plan = block_plan(block, before)
        if any(any(split) for *_, split in plan.runs):
            continue  # probabilities of masked windows are compared by the loop
        found = window_attention_sums(block, before, 4.0).means()
        a = a_BHTT.double()
        distance = grid_distances_px(*plan.window, 4.0)
        assert found.distance_px == pytest.approx(((a * distance).sum(-1).mean((0, 2))).tolist(), abs=1e-4), (
            name
        )
        entropy = -(a * a.clamp(min=1e-38).log()).sum(-1).mean((0, 2))
        assert found.entropy_nats == pytest.approx(entropy.tolist(), abs=1e-5), name


@pytest.mark.oracle
def test_tokens_equal_the_attentions_of_transformers() -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=64,
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = ViTModel(config, add_pooling_layer=False).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        theirs = model(x, output_attentions=True).attentions[0].double()
    logits = theirs.log()
    found = token_attention_sums(logits, grid=(4, 4), prefix=1, stride_px=16).means()
    patches = theirs[:, :, 1:, 1:]
    assert found.leak == pytest.approx((1 - patches.sum(-1)).mean((0, 2)).tolist(), abs=1e-6)
    a = patches / patches.sum(-1, keepdim=True)
    distance = (a * grid_distances_px(4, 4, 16)).sum(-1).mean((0, 2))
    assert found.distance_px == pytest.approx(distance.tolist(), abs=1e-5)
    kept = token_attention_sums(logits, grid=(4, 4), prefix=1, stride_px=16, keep_prefix=True).means()
    entropy = -(theirs[:, :, 1:] * theirs[:, :, 1:].log()).sum(-1).mean((0, 2))
    assert kept.entropy_nats == pytest.approx(entropy.tolist(), abs=1e-6)
    assert kept.distance_px == pytest.approx(found.distance_px)


@pytest.mark.parametrize(
    "timm_id", ["vit_tiny_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"]
)
def test_logits_of_timms_attention_give_its_own_output(timm_id: str) -> None:
    import timm

    small = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 0}
    trunk: Any = timm.create_model(timm_id, **small).eval()
    check_global(trunk, timm_id)
    attention = trunk.blocks[0].attn
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    attention.register_forward_pre_hook(lambda _, a, k: given.append((a, k)), with_kwargs=True)
    outputs: list[Tensor] = []
    attention.register_forward_hook(lambda _, __, output: outputs.append(output))
    side = trunk.patch_embed.img_size[0]
    with torch.inference_mode():
        trunk.forward_features(torch.randn(1, 3, side, side))
        inputs, named = given[0]
        logits = attention_logits(attention, *inputs, **named)
    tokens = inputs[0].shape[1]
    assert logits.shape == (1, 3, tokens, tokens) and logits.dtype is torch.float64
    attention.fused_attn = False
    caught: list[Tensor] = []
    attention.attn_drop.register_forward_pre_hook(lambda _, a: caught.append(a[0]))
    with torch.inference_mode():
        again = attention(*inputs, **named)
    assert torch.allclose(again, outputs[0], atol=1e-5)
    assert torch.allclose(logits.softmax(-1).float(), caught[0], atol=1e-5)


def test_models_without_global_attention_are_refused_by_name() -> None:
    import timm

    with torch.device("meta"):
        trunks = [timm.create_model(name) for name in ("samvit_base_patch16", "xcit_nano_12_p16_224")]
    for trunk in trunks:
        with pytest.raises(NoGlobalAttention, match="no single softmax"):
            check_global(trunk, "timm:x")


def test_swin_v1_windows_follow_the_same_rules() -> None:
    card = backbone_card("timm:swin_tiny_patch4_window7_224", {"embed_dim": 24, "num_heads": [1, 2, 4, 8]})
    backbone = load_backbone(card, "random:1", compiled=False)
    for name, block, before, _ in _visited(backbone, (224, 224))[:3]:
        found = swin_v1_attention_sums(block, before, 4.0).means()
        assert found.queries == before.shape[1] * before.shape[2], name
        assert max(found.leak) < 1e-12, name  # 56 cells in windows of 7
        assert min(found.distance_px) > 0 and max(found.relative_entropy) <= 1, name
