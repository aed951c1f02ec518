"""Video blocks against SwinV2's attention, plain products and plain loops; and their memory."""

import itertools
import json
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heads.contract import HeadError
from heads.video import biased_attention as module
from heads.video.biased_attention import biased_attention
from heads.video.blocks import HEAD_CHANNELS, VideoBlock
from heads.video.position_bias import PositionBias, bias_of_pairs

CHANNELS, SIDE = 96, 7


def redrawn(layer: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """With every parameter redrawn: as built, a block is the identity and tests nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            if name.endswith("norm.weight"):
                parameter.add_(1)
            if name.endswith("logit_scale"):  # some below, some above the clamp at ln 100
                parameter.copy_(torch.linspace(1, 6, parameter.numel()).view_as(parameter))
    return layer


@pytest.mark.oracle
def test_a_block_equals_transformers_swinv2_layer() -> None:
    """On one window of 7x7 that is the whole map, with equal weights: outputs and every gradient."""
    swinv2 = pytest.importorskip("transformers.models.swinv2.modeling_swinv2")
    config = pytest.importorskip("transformers").Swinv2Config(
        window_size=SIDE, qkv_bias=True, layer_norm_eps=1e-5, hidden_act="gelu", mlp_ratio=4.0
    )
    heads = CHANNELS // HEAD_CHANNELS
    theirs = swinv2.Swinv2Layer(config, CHANNELS, (SIDE, SIDE), heads).train()
    mine = redrawn(VideoBlock(CHANNELS, 2, position_bias=True, drop_path=0.0))
    pairs = copied(mine, theirs)
    x = torch.randn(3, SIDE * SIDE, CHANNELS, generator=torch.Generator().manual_seed(1))
    expected = theirs(x, (SIDE, SIDE))[0]
    actual = mine(x[:, None], (SIDE, SIDE), None)[:, 0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    for out in (expected, actual):
        (out * expected.detach().sin()).sum().backward()
    for name, part, other in pairs:
        torch.testing.assert_close(
            part(), other.grad, rtol=2e-3, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def copied(mine: VideoBlock, theirs: nn.Module) -> list:
    """Copies our parameters into a Swinv2Layer. Returns (name, our gradient of it, its parameter) of each."""
    own, attention, bias = theirs.attention.self, mine.attention, mine.attention.position_bias
    dense, network = theirs.attention.output.dense, own.continuous_position_bias_mlp
    same = {
        "logit_scale": (attention.logit_scale, own.logit_scale),
        "hidden weight": (bias.hidden_weight, network[0].weight),
        "hidden bias": (bias.hidden_bias, network[0].bias),
        "head weight": (bias.head_weight, network[2].weight),
        "q bias": (attention.q_bias, own.query.bias),
        "v bias": (attention.v_bias, own.value.bias),
        "projection": (attention.projection.weight, dense.weight),
        "projection bias": (attention.projection.bias, dense.bias),
        "attention norm": (mine.attention_norm.weight, theirs.layernorm_before.weight),
        "attention norm bias": (mine.attention_norm.bias, theirs.layernorm_before.bias),
        "mlp in": (mine.mlp[0].weight, theirs.intermediate.dense.weight),
        "mlp in bias": (mine.mlp[0].bias, theirs.intermediate.dense.bias),
        "mlp out": (mine.mlp[2].weight, theirs.output.dense.weight),
        "mlp out bias": (mine.mlp[2].bias, theirs.output.dense.bias),
        "mlp norm": (mine.mlp_norm.weight, theirs.layernorm_after.weight),
        "mlp norm bias": (mine.mlp_norm.bias, theirs.layernorm_after.bias),
    }
    found = [(name, lambda p=ours: p.grad, other) for name, (ours, other) in same.items()]
    with torch.no_grad():
        for ours, other in same.values():
            other.copy_(ours)
        for third, layer in enumerate((own.query, own.key, own.value)):
            layer.weight.copy_(attention.qkv.weight.chunk(3)[third])
            found.append(
                (f"qkv {third}", lambda i=third: attention.qkv.weight.grad.chunk(3)[i], layer.weight)
            )
    assert {id(other) for _, _, other in found} == {id(parameter) for parameter in theirs.parameters()}
    return found


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_position_bias_equals_its_definition_pair_by_pair(extents: list[int]) -> None:
    bias = redrawn(PositionBias(len(extents), 2))
    actual = bias(extents)
    tokens = list(itertools.product(*(range(size) for size in extents)))
    for (i, query), (j, key) in itertools.product(enumerate(tokens), repeat=2):
        shares = [8 * (a - b) / max(n - 1, 1) for a, b, n in zip(query, key, extents, strict=True)]
        spaced = torch.tensor([math.copysign(math.log(abs(x) + 1, 8), x) for x in shares])
        hidden = (bias.hidden_weight @ spaced + bias.hidden_bias).relu()
        expected = 16 * torch.sigmoid(bias.head_weight @ hidden) - 8
        torch.testing.assert_close(actual[:, i, j], expected, rtol=1e-4, atol=1e-4)


def test_one_frame_has_the_bias_of_an_image() -> None:
    volume = redrawn(PositionBias(3, 2))
    plane = PositionBias(2, 2)
    with torch.no_grad():
        plane.hidden_weight.copy_(volume.hidden_weight[:, 1:])
        plane.hidden_bias.copy_(volume.hidden_bias)
        plane.head_weight.copy_(volume.head_weight)
    torch.testing.assert_close(volume((1, 3, 4)), plane((3, 4)))


def test_gradient_of_a_table_counts_its_pairs() -> None:
    """Offset d of n cells belongs to n - |d| pairs."""
    table = torch.zeros(1, 5, 3, requires_grad=True)
    bias_of_pairs(table, (3, 2)).sum().backward()
    assert table.grad.tolist() == [[[1, 2, 1], [2, 4, 2], [3, 6, 3], [2, 4, 2], [1, 2, 1]]]


@pytest.mark.parametrize("piece_bytes", [1, 25 * 8, 3 * 2 * 25 * 8, 1 << 20])
def test_biased_attention_equals_plain_products(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    """For any part of the batch, or of its heads, in one piece of the backward pass."""
    monkeypatch.setattr(module, "CPU_PIECE_BYTES", piece_bytes)
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 2, 5, 4)] * 3 + [(2, 5, 5)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    q, k, v, bias = inputs
    out, expected = biased_attention(q, k, v, bias), ((q @ k.mT + bias).softmax(-1) @ v)
    torch.testing.assert_close(out, expected)
    weight = expected.detach().cos()
    grads = [torch.autograd.grad((x * weight).sum(), inputs) for x in (out, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_no_piece_is_larger_than_its_bound() -> None:
    """A block of 32 MiB or more is mapped anew by malloc in each step, page by page."""
    for heads, tokens in ((16, 1568), (32, 784), (16, 196), (4, 12)):
        sequences, some = module.sizes_of_a_piece(torch.zeros(1).expand(heads, tokens, tokens))
        assert 1 <= some <= heads and (sequences == 1 or some == heads)
        assert sequences * some * tokens**2 * 4 <= module.CPU_PIECE_BYTES or sequences == some == 1


def test_channels_that_are_no_multiple_of_a_head() -> None:
    with pytest.raises(HeadError, match="48 channels, expected a multiple of 32"):
        VideoBlock(48, 1, position_bias=True, drop_path=0.0)


def test_drop_path_leaves_out_whole_clips() -> None:
    block = redrawn(VideoBlock(32, 1, position_bias=True, drop_path=0.5))
    with torch.no_grad():
        block.mlp_norm.weight.zero_()
        block.mlp_norm.bias.zero_()
    x = torch.randn(200, 2, 3, 32, generator=torch.Generator().manual_seed(1))

    def branch(seed: int | None) -> Tensor:
        return block(x, (3,), None if seed is None else torch.Generator().manual_seed(seed)).detach() - x

    dropped = branch(2)
    whole = block.eval() and branch(None)
    kept = dropped.flatten(1).ne(0).any(1)
    assert 70 < kept.sum() < 130
    assert not dropped[~kept].any()
    torch.testing.assert_close(dropped[kept], 2 * whole[kept], rtol=1e-4, atol=1e-5)


MEMORY = """
import json, pathlib, re, torch
from heads.video.biased_attention import biased_attention
torch.set_num_threads(1)
def peak_mib():  # not ru_maxrss, which a new process inherits from the one that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
def step(clips, attend):
    q, k, v = (torch.randn(clips, 4, 784, 32, requires_grad=True) for _ in range(3))
    bias = torch.randn(4, 784, 784, requires_grad=True)
    attend(q, k, v, bias).sum().backward()
def plain(q, k, v, bias): return (q @ k.mT + bias).softmax(-1) @ v
peaks = []
for clips, attend in ((1, biased_attention), (7, biased_attention), (14, biased_attention), (14, plain)):
    step(clips, attend)
    peaks.append(peak_mib())
print(json.dumps(peaks))
"""


@pytest.mark.ci
def test_peak_memory_does_not_grow_with_batch_times_tokens_squared() -> None:
    """In a process of its own: what 7 more clips of 784 tokens add is their q, k, v and gradients, 20 MiB.

    A clip's logits are 9.4 MiB here, those of 14 clips 131 MiB, of which plain products hold several at once.
    The limits leave room for what the allocator keeps.
    """
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    one, seven, fourteen, plain = json.loads(done.stdout)
    assert seven - one < 90
    assert fourteen - seven < 90
    assert plain - fourteen > 150


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_it_equals_plain_products_and_holds_no_logits_of_a_batch(dtype: torch.dtype) -> None:
    """32 clips of 784 tokens, 16 heads: their logits are 1.2 GiB in float32, and plain products hold several
    of them. Inputs, outputs and their gradients are 0.4 GiB."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(32, 16, 784, 32)] * 3 + [(16, 784, 784)]
    inputs = [torch.randn(shape, generator=generator).to("cuda", dtype).requires_grad_() for shape in shapes]
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = biased_attention(*inputs)
    out.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 1 << 30
    q, k, v, bias = (x.detach().float().requires_grad_() for x in inputs)
    expected = (q @ k.mT + bias).softmax(-1) @ v
    expected.sum().backward()
    exact = [expected, *(x.grad for x in (q, k, v, bias))]
    for found, wanted in zip([out, *(x.grad for x in inputs)], exact, strict=True):
        error = (found.float() - wanted).norm() / wanted.norm()
        assert error.item() < (1e-4 if dtype == torch.float32 else 0.03)
