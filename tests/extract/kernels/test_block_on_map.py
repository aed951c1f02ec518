"""GPU kernels that leave tokens in map order give the numbers of the plain functions.

Without a GPU they run in Triton's interpreter, on the CPU, and in float32 where it does not round.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.backbones import frozen_swin as folded_swin
from extract.backbones.device_functions import functions_for
from extract.backbones.loading import PRECISIONS, backbone_card, load_backbone
from extract.backbones.precision import LIMIT
from extract.kernels import block_on_map as map_run
from extract.kernels.add_normed import add_normed
from extract.kernels.linear_gelu import linear_gelu
from extract.kernels.window_attention import attend
from extract.swin.attention import AttentionWeights
from extract.swin.attention_gpu import enter, mix
from extract.swin.block import FoldedBlock
from extract.swin.patches import PixelNorm
from extract.swin.position_bias import offset_index
from extract.swin.steps import MapRun
from extract.swin.window_rule import HW
from extract.swin.windows import split_mask, window_plan
from tests.extract.backbones.small import SMALL, SMALL_GIANT, images, worst_error

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOG2_E = torch.tensor(torch.e).log2()
WINDOWS = [
    ((16, 16), (8, 8), (0, 0)),
    ((13, 18), (8, 8), (4, 4)),
    ((24, 13), (12, 12), (6, 6)),  # two tiles of keys
    ((9, 9), (7, 7), (3, 3)),  # keys beyond the window in both
    ((5, 8), (3, 4), (1, 2)),  # fewer tokens than a tile
    ((18, 14), (18, 15), (9, 0)),  # keys pass by; a last tile that is not full
]
DTYPES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""And what may differ, of the largest value."""
CASES = (
    [(*windows, dtype) for windows in WINDOWS for dtype in (torch.float16, torch.bfloat16)]
    if DEVICE.type == "cuda"
    else [(*windows, torch.float32) for windows in WINDOWS] + [(*WINDOWS[1], torch.float16)]
)
"""On a GPU the kernels are not meant for float32; the interpreter is slow, and cannot multiply bfloat16."""


def attention_case(grid: HW, window: HW, dtype: torch.dtype) -> tuple[Tensor, Tensor, AttentionWeights]:
    """Of two images and two heads: a map, a table of biases as large as trained ones, weights."""
    torch.manual_seed(0)
    heads, channels = 2, 32
    x = torch.randn(2, grid[0] * grid[1], heads * 16)
    table = torch.rand(heads, (2 * window[0] - 1) * (2 * window[1] - 1)) * 16
    weights = AttentionWeights(
        qkv_weight=torch.randn(3 * channels, channels).to(dtype),
        qkv_bias=torch.randn(3 * channels).to(dtype),
        factor_QBHTD=torch.tensor([10.0, 3.0, 1.0, 1.0]).view(2, 1, heads, 1, 1),
    )
    return x.to(DEVICE), table.to(DEVICE), AttentionWeights(*(part.to(DEVICE) for part in weights))


@pytest.mark.parametrize(("grid", "window", "shift", "dtype"), CASES, ids=str)
def test_windows_on_the_map_attend_as_windows_cut_out(
    grid: HW, window: HW, shift: HW, dtype: torch.dtype
) -> None:
    x, table, weights = attention_case(grid, window, dtype)
    plan = window_plan(grid, window, shift, DEVICE)
    q, k, v = (part.float() for part in enter(F.pad(x, (0, 0, 0, 1)), plan.gather, plan.tokens, weights))
    bias = table[:, offset_index(window).to(DEVICE)]
    masks = [
        (slice(2 * first, 2 * last), bias + split_mask(window, shift, split).to(DEVICE))
        for first, last, split in plan.runs
    ]
    windows = mix(q, k, v, masks).transpose(1, 2).reshape(plan.windows, 2, plan.tokens, -1)
    expected = windows.transpose(0, 1).flatten(1, 2)[:, plan.scatter]
    qkv = F.linear(x.to(dtype), weights.qkv_weight, weights.qkv_bias)
    found = attend(qkv, table * LOG2_E, plan, weights)
    assert found.dtype == dtype and worst_error(found.float(), expected) < DTYPES[dtype]


@pytest.mark.parametrize(("rows", "depth", "columns"), [(130, 96, 384), (64, 64, 200), (3, 40, 128)])
def test_gelu_is_within_a_thousandth_of_half_precision(rows: int, depth: int, columns: int) -> None:
    torch.manual_seed(0)
    dtype = torch.float16 if DEVICE.type == "cuda" else torch.float32
    x, weight, bias = (
        torch.randn(shape, device=DEVICE).to(dtype) for shape in [(2, rows, depth), (columns, depth), columns]
    )
    found = linear_gelu(x, weight / depth**0.5, bias).double()
    expected = F.gelu(F.linear(x.double(), (weight / depth**0.5).double(), bias.double()))
    rounding = torch.finfo(dtype).eps * expected.abs() + 2e-6 * (dtype is torch.float32)
    assert ((found - expected).abs() <= 1e-6 + rounding).all()


def test_gelu_of_values_no_float16_is_beyond() -> None:
    """Zero far below, the value itself far above; NaN stays NaN."""
    dtype = torch.float16 if DEVICE.type == "cuda" else torch.float32
    x = torch.tensor([[-65504.0], [-30.0], [-6.5], [0.0], [6.5], [65504.0], [torch.nan]], device=DEVICE)
    one = torch.zeros(16, 1, device=DEVICE)
    one[0] = 1
    found = linear_gelu(x.to(dtype), one.to(dtype), torch.zeros(16, device=DEVICE, dtype=dtype))[:, 0]
    assert found[:-1].float().tolist() == pytest.approx([0, 0, 0, 0, 6.5, 65504], abs=1e-6)
    assert found[-1].isnan()


@pytest.mark.parametrize("channels", [30, 96, 512])
@pytest.mark.parametrize("last", [False, True])
def test_a_residual_sum_is_torchs(channels: int, last: bool) -> None:
    torch.manual_seed(0)
    x, branch = (torch.randn(2, 33, channels, device=DEVICE) for _ in range(2))
    weight, bias, last_weight, last_bias = (torch.randn(channels, device=DEVICE) for _ in range(4))
    low_branch = (3 * branch + 1).half()
    expected = x + F.layer_norm(low_branch.float(), (channels,), weight, bias)
    norms = (last_weight, last_bias) if last else ()
    if last:
        expected = F.layer_norm(expected, (channels,), *norms)
    found, low = add_normed(x, low_branch, weight, bias, *norms)
    assert torch.allclose(found, expected, atol=1e-5)
    assert low.dtype == torch.float16 and torch.equal(low, found.half())


@torch.inference_mode()
@pytest.mark.parametrize("rule", ["partition", "cover"])
@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("swinv2-t", SMALL),
        pytest.param("swinv2-b", {**SMALL, "window_size": 12}, marks=pytest.mark.slow),
        ("swinv2-g", SMALL_GIANT),
    ],
)
@pytest.mark.ci
def test_a_backbone_on_its_map_is_the_backbone(
    model: str, args: dict[str, object], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From bytes on, with padded and cut windows, and an image that does not fill its batch's shape."""
    window = {"window_size": [8, 8, 8, 4]} if model == "swinv2-g" else {}
    card = backbone_card(model, {**args, **window}, window_rule=rule)
    precision, most = ("fp32", 1e-5) if DEVICE.type == "cpu" else ("fp16", 0.01)
    exact, backbone = (
        load_backbone(card, "random:0", device=DEVICE, precision=name, compiled=False)
        for name in ("fp32", precision)
    )
    pixels, valid = images(2, (60, 86))
    valid[1] = torch.tensor([41, 54])
    expected = exact(pixels, valid)
    network = backbone.network
    assert isinstance(network, folded_swin.FoldedSwin)
    on_map = MapRun(lambda block: block.dtype is PRECISIONS[precision], map_run.run_on_map)
    functions = replace(functions_for("cuda", compiled=False), on_map=on_map)
    monkeypatch.setattr(folded_swin, "functions_for", lambda *_: functions)
    norm = PixelNorm(backbone.mean, backbone.std)
    found = network.of_pixels(pixels.to(DEVICE), valid.to(DEVICE), norm)
    for level in backbone.pyramid:
        assert worst_error(found.maps[level.stage], expected[level.name]) < most


def test_float32_blocks_and_other_head_sizes_do_not_use_the_kernels() -> None:
    backbone = load_backbone(backbone_card("swinv2-t", SMALL), "random:0", precision="bf16")
    first, second, *rest = (step for step in backbone.network.modules() if isinstance(step, FoldedBlock))
    first.heads *= 4
    second.dtype = torch.float32
    assert [map_run.takes(block) for block in (first, second, *rest)] == [False, False, *[True] * len(rest)]


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["partition", "cover"])
@pytest.mark.parametrize("model", ["swinv2-t", "swinv2-b"])
def test_half_precision_stays_within_its_limit(model: str, rule: str) -> None:
    """Of the real models, at a size whose windows are padded, after launches were recorded."""
    card = backbone_card(model, window_rule=rule)
    fast = load_backbone(card, "random:0", device="cuda", precision="fp16")
    exact = load_backbone(card, "random:0", device="cuda", precision="fp32", compiled=False)
    pixels, valid = images(2, (510, 382))
    for _ in range(4):
        found = fast(pixels, valid)
    for name, level in exact(pixels, valid).items():
        assert float((found[name] - level).norm() / level.norm()) < LIMIT
