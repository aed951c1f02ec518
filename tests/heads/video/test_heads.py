"""Video heads: sizes, initial outputs, which orders they can distinguish, and a plain-loop reference."""

import math

import pytest
import torch
from torch import Tensor

from heads import build_head
from heads.contract import Head, HeadError
from tests.heads.pyramids import SWINV2_CHANNELS, clip_pyramid, parameter_count, random_clips
from tests.heads.video.test_video_attention import redrawn

HW = (64, 96)
BLOCKS = ("temporal1", "global1")


def clips(count: int = 3, frames: int = 4, channels: int = 64, seed: int = 0) -> dict[str, Tensor]:
    return random_clips(clip_pyramid(channels), count, frames, HW, seed)


def head_of(name: str, channels: int = 64, classes: int = 5, **settings: object) -> Head:
    return build_head(name, "video", clip_pyramid(channels), classes, seed=0, **settings)


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("linear", "b", 410_000),
        ("temporal4", "t", 28_401_760 + 307_600),
        ("temporal4", "b", 50_450_560 + 410_000),
        ("temporal4", "l", 113_422_528 + 614_800),
        ("global4", "t", 28_405_856 + 307_600),
        ("global4", "b", 50_454_656 + 410_000),
        ("global4", "l", 113_426_624 + 614_800),
    ],
)
def test_parameter_counts(name: str, size: str, parameters: int) -> None:
    """Blocks + classifier of 400 classes; 28.4, 50.4 and 113.3 M are of the blocks alone, counted apart.

    A block of C channels and h = C/32 heads: 12 C^2 + 12 C of projections, biases and norms, h scales, and
    512 (axes + 1 + h) of the position bias.
    """
    with torch.device("meta"):
        head = build_head(name, "video", clip_pyramid(8 * SWINV2_CHANNELS[size]), 400)
    assert parameter_count(head) == parameters
    if name != "linear":
        channels, axes = 8 * SWINV2_CHANNELS[size], 1 if name == "temporal4" else 3
        heads = channels // 32
        block = 12 * channels**2 + 12 * channels + heads + 512 * (axes + 1 + heads)
        assert parameters == 4 * block + 400 * (channels + 1)
        printed = {"t": 28.4e6, "b": 50.4e6, "l": 113.3e6}[size]
        assert 4 * block == pytest.approx(printed, rel=2e-3)


def test_blocks_of_swinv2_g_are_no_bottleneck() -> None:
    """805 M: as many as explain the 30.5 GB of table 7."""
    with torch.device("meta"):
        head = build_head("global4", "video", clip_pyramid(8 * SWINV2_CHANNELS["g"]), 400)
    assert parameter_count(head.blocks) == pytest.approx(805e6, rel=2e-3)


@pytest.mark.parametrize("name", ["temporal3", "global2"])
def test_a_new_head_is_the_linear_head(name: str) -> None:
    linear, head = head_of("linear").eval(), head_of(name).eval()
    head.classifier.load_state_dict(linear.classifier.state_dict())
    mean = clips()["p5n"].mean((2, 3, 4))
    torch.testing.assert_close(linear(clips(), [HW] * 3), linear.classifier(mean))
    torch.testing.assert_close(head(clips(), [HW] * 3), linear(clips(), [HW] * 3))


def test_initial_weights() -> None:
    head = head_of("global1", channels=768, classes=400)
    assert head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    attention = head.blocks[0].attention
    assert attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.classifier.bias.any() and not attention.q_bias.any() and not attention.v_bias.any()
    torch.testing.assert_close(attention.logit_scale.exp(), torch.full((24, 1, 1), 10.0))


@pytest.mark.parametrize("name", ["temporal2", "global2"])
def test_scores_equal_plain_loops(name: str) -> None:
    """Token by token: its keys, softmax, norm and MLP."""
    head = redrawn(head_of(name)).eval()
    x_NCTyx = clips(2)["p5n"]
    n, c, t, y, x = x_NCTyx.shape
    extents = (t,) if name == "temporal2" else (t, y, x)
    for clip in range(n):
        sites = x_NCTyx[clip].reshape(c, t, y * x).permute(2, 1, 0)  # (sites, T, C)
        groups = list(sites) if name == "temporal2" else [sites.transpose(0, 1).reshape(-1, c)]
        for block in head.blocks:
            groups = [plain_block(block, group, extents) for group in groups]
        expected = head.classifier(torch.cat(groups).mean(0))
        actual = head({"p5n": x_NCTyx[clip : clip + 1]}, [HW])[0]
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def plain_block(block: torch.nn.Module, x_LC: Tensor, extents: tuple[int, ...]) -> Tensor:
    attention, bias_HLL = block.attention, block.attention.position_bias(extents)
    q_LC, k_LC, v_LC = (x_LC @ weight.T for weight in attention.qkv.weight.chunk(3))
    q_LC, v_LC = q_LC + attention.q_bias, v_LC + attention.v_bias
    mixed = []
    for i in range(len(x_LC)):
        parts = []
        for h, scale in enumerate(attention.logit_scale.flatten().exp().clamp(max=100)):
            columns = slice(32 * h, 32 * h + 32)
            cosines = torch.cosine_similarity(q_LC[i, columns], k_LC[:, columns], dim=-1)
            parts.append((scale * cosines + bias_HLL[h, i]).softmax(0) @ v_LC[:, columns])
        mixed.append(torch.cat(parts))
    x_LC = x_LC + block.attention_norm(attention.projection(torch.stack(mixed)))
    return x_LC + block.mlp_norm(block.mlp(x_LC))


def test_clips_of_several_valid_sizes_are_cut_to_theirs() -> None:
    head = redrawn(head_of("global1")).eval()
    x = clips(2)["p5n"]
    together = head({"p5n": x}, [HW, (64, 33)])
    torch.testing.assert_close(together[1:], head({"p5n": x[1:, ..., :2]}, [(64, 33)]))
    assert not torch.allclose(together[1], head({"p5n": x[1:]}, [HW])[0])


@pytest.mark.parametrize("name", BLOCKS)
def test_only_the_position_bias_distinguishes_a_clip_from_its_reversal(name: str) -> None:
    x = clips()["p5n"]
    for position_bias in (True, False):
        head = redrawn(head_of(name, position_bias=position_bias)).eval()
        forward, backward = (head({"p5n": each}, [HW] * 3) for each in (x, x.flip(2)))
        assert torch.allclose(forward, backward, rtol=1e-4, atol=1e-4) is not position_bias


def test_temporal_blocks_keep_cells_apart_and_global_ones_do_not() -> None:
    """The order of the cells matters only to a head that compares them."""
    x = clips()["p5n"]
    for name, sees_places in (("temporal1", False), ("global1", True)):
        head = redrawn(head_of(name)).eval()
        scores, mirrored = head({"p5n": x}, [HW] * 3), head({"p5n": x.flip(-1)}, [HW] * 3)
        assert torch.allclose(scores, mirrored, rtol=1e-4, atol=1e-4) is not sees_places


@pytest.mark.parametrize("name", ["linear", *BLOCKS])
def test_overfits_a_few_clips_unless_only_their_order_differs(name: str) -> None:
    """Eight clips in four classes; class 2 k + 1 holds the reversals of class 2 k."""
    x = clips(4, channels=32)["p5n"]
    batch = {"p5n": torch.cat([x, x.flip(2)])}
    labels = torch.tensor([0, 0, 2, 2, 1, 1, 3, 3])
    without = {"dropout": 0.0} if name == "linear" else {"dropout": 0.0, "drop_path": 0.0}
    head = head_of(name, channels=32, classes=4, **without)
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-2, weight_decay=0.0)
    targets, first = [{"label": label} for label in labels], None
    for step in range(60):
        loss = head.losses(batch, targets, [HW] * 8, torch.Generator().manual_seed(step))["loss_cls"]
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = torch.stack(head.eval().predict(batch, [HW] * 8, [HW] * 8)).argmax(1)
    if name == "linear":  # it can find the pair of classes, and no more
        assert loss.item() == pytest.approx(math.log(2), abs=0.03)
    else:
        assert loss.item() < first / 10
    assert (found == labels).float().mean() == (0.5 if name == "linear" else 1.0)
    assert torch.equal(found // 2, labels // 2)


def test_sharp_logits_in_bfloat16() -> None:
    """At scales clamped to 100 and biases of +-8 scores stay near those of float32."""
    head = redrawn(head_of("global2", channels=64)).eval()
    exact = head(clips(), [HW] * 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = head(clips(), [HW] * 3).float()
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.1


def test_labels_and_settings_out_of_range() -> None:
    head = head_of("linear")
    with pytest.raises(HeadError, match=r"labels \[0, 5, 1\], expected 0\.\.4"):
        head.losses(clips(), [{"label": torch.tensor(label)} for label in (0, 5, 1)], [HW] * 3)
    for setting, value in (("blocks", 0), ("span", "spatial"), ("position_bias", 1), ("drop_path", 1.0)):
        with pytest.raises(HeadError, match=setting):
            head_of("global1", **{setting: value})
    with pytest.raises(HeadError, match="input_norm"):
        head_of("linear", input_norm="bn")
