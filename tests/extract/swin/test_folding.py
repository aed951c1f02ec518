"""Folded constants: the same numbers however they are kept, chunked, grouped or compiled."""

from dataclasses import dataclass

import pytest
import torch
from torch._dynamo.utils import counters

from extract.backbones import frozen_swin as folded_swin
from extract.backbones.device_functions import functions_for
from extract.backbones.loading import backbone_card, load_backbone
from extract.swin import block as folded_block
from extract.swin import block_by_windows as block_runs
from extract.swin.block import FoldedBlock, constants_bytes, keep_constants
from extract.swin.patches import Merge, Patches, PixelNorm
from extract.swin.position_bias import offset_index
from extract.swin.windows import shift_mask
from tests.extract.backbones.small import SMALL, SMALL_GIANT, images, timm_levels, timm_trunk, worst_error

CARDS = {
    "v2": ("swinv2-t", SMALL),
    "v2 of changed window": ("swinv2-b", {**SMALL, "window_size": [10, 10, 10, 5]}),
    "giant": ("swinv2-g", {**SMALL_GIANT, "window_size": [8, 8, 8, 4]}),
}


@pytest.fixture(params=CARDS)
def card(request):
    return backbone_card(*CARDS[request.param])


def first_blocks(backbone) -> tuple[FoldedBlock, FoldedBlock]:
    plain, shifted = [step for step in backbone.network.steps if isinstance(step, FoldedBlock)][:2]
    return plain, shifted


def test_constants_are_timms_bias_and_mask(card):
    plain, shifted = first_blocks(load_backbone(card, "random:0"))
    trunk = timm_trunk(card)
    for block, theirs in zip(
        (plain, shifted),
        next(trunk.modules()).get_submodule(
            "stages.0.blocks" if card.family == "swinv2_cr" else "layers.0.blocks"
        ),
        strict=True,
    ):
        attention, tokens = theirs.attn, block.window[0] * block.window[1]
        if card.family == "swinv2_cr":
            expected = attention._relative_positional_encodings()[0]
        else:
            table = 16 * torch.sigmoid(
                attention.cpb_mlp(attention.relative_coords_table).view(-1, block.heads)
            )
            assert torch.equal(offset_index(block.window), attention.relative_position_index)
            expected = (
                table[attention.relative_position_index.flatten()].view(tokens, tokens, -1).permute(2, 0, 1)
            )
        assert torch.allclose(block.bias((False, False), block.window), expected, atol=1e-5)
        if any(block.shift):
            corner = shift_mask(block.window, block.window, block.shift)[0]
            assert torch.allclose(block.bias((True, True), block.window), expected + corner, atol=1e-4)


def as_on_a_gpu(monkeypatch, compiled: bool = False) -> None:
    """Its functions and its order of work, on the CPU."""
    monkeypatch.setattr(folded_swin, "functions_for", lambda *_: functions_for("cuda", compiled))


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_folding_changes_nothing_but_the_order_of_sums(card, device_type, monkeypatch):
    if device_type == "cuda":
        as_on_a_gpu(monkeypatch)
    backbone, batch = load_backbone(card, "random:0"), images(1, (124, 188))
    theirs = timm_levels(timm_trunk(card), backbone.normalise(*batch))
    for ours, expected in zip(backbone(*batch).values(), theirs, strict=True):
        assert worst_error(ours, expected) < 1e-5


@torch.inference_mode()
def test_a_batch_at_once_equals_its_images(card):
    """The way of a GPU, its fused kernel included, on the CPU: images must not be mixed up."""
    backbone = load_backbone(card, "random:0")
    functions = functions_for("cuda", compiled=False)
    plain, shifted = first_blocks(backbone)
    x = torch.randn(3, 21 * 30, len(plain.proj_bias))
    for block in (plain, shifted):
        plan = folded_block.window_plan((21, 30), block.window, block.shift, torch.device("cpu"))
        together = block_runs.run_at_once(block, x, plan, functions)
        for image, expected in enumerate(together):
            alone = block_runs.run_in_groups(
                block, x[image : image + 1], plan, functions_for("cpu", compiled=False)
            )
            assert worst_error(expected[None], alone) < 1e-5


@pytest.mark.parametrize("limits", [{"KEPT_BYTES": 0}, {"_LOGITS_BYTES": 1}, {"_SUMMED_BYTES": 1}], ids=str)
def test_memory_limits_change_no_bit(card, limits, monkeypatch):
    batch = images(1, (96, 160))
    expected = load_backbone(card, "random:0")(*batch)
    for name, value in limits.items():
        monkeypatch.setattr(folded_block, name, value)
    backbone = load_backbone(card, "random:0")
    if "KEPT_BYTES" in limits:
        keep_constants(first_blocks(backbone), 0)
        assert not any(block.keeps_bias for block in first_blocks(backbone))
    for name, level in backbone(*batch).items():
        assert worst_error(level, expected[name]) < 1e-6


@pytest.mark.parametrize("windows", [(16, 16, 16, 8), (32, 32, 32, 32), (40, 40, 40, 20)])
def test_the_giants_constants_stay_within_two_gigabytes(windows):
    """Window 40 has 1600 x 1600 logits a head: 33 GB for stage 3 if all were kept."""
    blocks = [
        _Sized(constants_bytes(heads, (window, window), (window // 2 * (i % 2),) * 2, torch.float16))
        for heads, window, depth in zip((16, 32, 64, 128), windows, (2, 2, 42, 4), strict=True)
        for i in range(depth)
    ]
    keep_constants(blocks)
    assert sum(block.kept_bytes for block in blocks if block.keeps_bias) < 2 << 30
    if windows[2] == 16:
        assert sum(block.keeps_bias for block in blocks) > len(blocks) / 2


@dataclass
class _Sized:
    """The size of a block's constants without its weights."""

    kept_bytes: int
    keeps_bias: bool = True


def test_constants_do_not_grow_with_the_image():
    backbone = load_backbone(backbone_card("swinv2-t", SMALL), "random:0")
    _, shifted = first_blocks(backbone)
    for hw in [(64, 64), (96, 160), (256, 320), (288, 352)]:
        backbone(*images(1, hw))
    kept = list(shifted._kept.values())
    assert len(kept) == 4 and sum(b.numel() * 4 for b in kept) == shifted.kept_bytes


@pytest.mark.slow
def test_compiled_equals_eager(card):
    """Slow: a minute of compiling. No size may compile again, or each bin of a store would."""
    eager, compiled = (load_backbone(card, "random:0", compiled=choice) for choice in (False, True))
    graphs = []
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for hw in [(96, 160), (124, 188), (256, 224), (64, 64)]:
            batch = images(2, hw)
            pairs = zip(compiled(*batch).values(), eager(*batch).values(), strict=True)
            assert max(worst_error(a, b) for a, b in pairs) < 1e-5
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1] == graphs[2], f"sizes compile again: {graphs}"
    # Maps of 64 px have one window or one token, and what is one the compiler takes for a constant.
    assert graphs[3] - graphs[2] <= 8, f"sizes compile again: {graphs}"


@pytest.mark.slow
@torch.inference_mode()
def test_a_compiled_batch_at_once_equals_its_images(card):
    """What a GPU runs, but for the fused kernel, compiled for the CPU."""
    functions = functions_for("cuda", compiled=True)
    for block in first_blocks(load_backbone(card, "random:0")):
        for count, grid in [(3, (21, 30)), (1, (16, 24)), (2, (12, 40))]:
            x = torch.randn(count, grid[0] * grid[1], len(block.proj_bias))
            plan = folded_block.window_plan(grid, block.window, block.shift, torch.device("cpu"))
            compiled = block_runs.run_at_once(block, x, plan, functions)
            eager = block_runs.run_at_once(block, x, plan, functions_for("cuda", compiled=False))
            assert worst_error(compiled, eager) < 1e-5


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_patches_of_bytes_and_merges_equal_plain_ones():
    """Sizes that a patch or a merge divides, and that they do not; parts of a batch that hold no image."""
    network = load_backbone(backbone_card("swinv2-t", SMALL), "random:0").network
    patches, merge = (next(s for s in network.steps if isinstance(s, kind)) for kind in (Patches, Merge))
    norm = PixelNorm(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25]))
    compiled, plain = (functions_for("cuda", compiled) for compiled in (True, False))
    for count, hw in [(2, (96, 160)), (3, (94, 157)), (1, (64, 64)), (2, (92, 100))]:
        pixels, valid = images(count, hw)
        valid[-1] = torch.tensor([hw[0] - 33, hw[1] - 6])
        (ours, _), (theirs, _) = (patches.of_pixels(pixels, valid, norm, way) for way in (compiled, plain))
        assert worst_error(ours, theirs) < 1e-5
        assert worst_error(merge(ours, compiled)[0], merge(ours, plain)[0]) < 1e-5


@pytest.mark.slow
def test_compiled_rows_have_the_same_bytes_in_any_batch():
    backbone = load_backbone(backbone_card("swinv2-t", SMALL), "random:0", compiled=True)
    pixels, valid = images(3, (96, 160))
    together = backbone(pixels, valid)
    for name, row in backbone(pixels[2:], valid[2:]).items():
        assert torch.equal(row, together[name][2:])
