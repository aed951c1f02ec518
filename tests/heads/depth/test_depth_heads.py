"""Depth heads: published sizes, losses and decoders equal to other libraries, sizes that do not fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from heads import HeadError, build_head, head_names
from heads.depth.silog import dinov2_depth_loss, gradient_loss, silog_loss
from stores.pyramid import Level, PyramidSpec


def last_map(channels: int, stride_px: int = 32) -> PyramidSpec:
    return PyramidSpec((Level(name="p5", stride_px=stride_px, channels=channels, stage=4),))


def four_blocks(channels: int, stride_px: int = 16) -> PyramidSpec:
    blocks = (3, 6, 9, 12)
    levels = (Level(name=f"b{n}n", stride_px=stride_px, channels=channels, stage=n) for n in blocks)
    return PyramidSpec(tuple(levels))


def depths(shape: tuple[int, ...], seed: int = 0, unknown: float = 0.3) -> Tensor:
    """Metres of 0.5 to 9.5, 0 where nothing was measured."""
    draws = torch.Generator().manual_seed(seed)
    metres = 0.5 + 9 * torch.rand(shape, generator=draws)
    return torch.where(torch.rand(shape, generator=draws) < unknown, 0.0, metres)


@pytest.mark.parametrize(("channels", "expected"), [(768, 218_529), (1024, 325_441), (1536, 594_561)])
def test_parameters_of_the_deconvolution_head(channels: int, expected: int) -> None:
    with torch.device("meta"):
        head = build_head("depth-deconv2x32", "depth", last_map(channels), 0)
    counts = {name: parameter.numel() for name, parameter in head.named_parameters()}
    assert sum(count for name, count in counts.items() if not name.startswith("input_norm")) == expected
    assert sum(count for name, count in counts.items() if name.startswith("input_norm")) == 2 * channels


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [0, 1])
def test_silog_is_that_of_glpn(seed: int) -> None:
    glpn = pytest.importorskip("transformers.models.glpn.modeling_glpn")
    truth, predicted = depths((3, 40, 56), seed), depths((3, 40, 56), seed + 10, unknown=0)
    expected = glpn.SiLogLoss()(predicted, truth)
    assert silog_loss(predicted, truth).item() == pytest.approx(expected.item(), rel=1e-6)


def test_silog_without_error_or_without_truth_has_a_gradient() -> None:
    for truth in (depths((2, 8, 8)), torch.zeros(2, 8, 8)):
        predicted = truth.clone().clamp(min=1.0).requires_grad_()
        silog_loss(predicted, truth.clamp(min=1.0) * (truth > 0)).backward()
        assert predicted.grad is not None and torch.isfinite(predicted.grad).all()
    assert torch.isfinite(silog_loss(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)))


def test_dinov2_losses_by_loops() -> None:
    truth, predicted = depths((2, 17, 20)), depths((2, 17, 20), 5, unknown=0)
    limit, eps = 8.0, 1e-3
    g = [
        [
            [
                math.log(predicted[n, y, x] + eps) - math.log(truth[n, y, x] + eps)
                if 0 < truth[n, y, x] <= limit
                else None
                for x in range(20)
            ]
            for y in range(17)
        ]
        for n in range(2)
    ]
    flat = [value for image in g for row in image for value in row if value is not None]
    mean = sum(flat) / len(flat)
    variance = sum((value - mean) ** 2 for value in flat) / (len(flat) - 1)
    found = [dinov2_depth_loss(predicted, truth, limit, torch.tensor(warm)).item() for warm in (False, True)]
    assert found[0] == pytest.approx(math.sqrt(variance + 0.15 * mean**2), rel=1e-5)
    assert found[1] == pytest.approx(math.sqrt(0.15) * abs(mean), rel=1e-4)
    total = 0.0
    for step in (1, 2, 4, 6):
        thinned = [[row[::step] for row in image[::step]] for image in g]
        pairs = [
            (image[y][x], image[y + dy][x + dx])
            for image in thinned
            for y in range(len(image))
            for x in range(len(image[0]))
            for dy, dx in ((2, 0), (0, 2))
            if y + dy < len(image) and x + dx < len(image[0])
        ]
        count = sum(value is not None for image in thinned for row in image for value in row)
        total += sum(abs(a - b) for a, b in pairs if a is not None and b is not None) / count
    assert gradient_loss(predicted, truth, limit).item() == pytest.approx(total, rel=1e-4)


def test_linear_bins_equal_one_convolution_of_all_maps() -> None:
    """DINOv2's order: constant class tokens, all maps resized, concatenated, one convolution, bins."""
    pyramid = PyramidSpec(
        (
            Level(name="b12n", stride_px=14, channels=24, stage=12),
            Level(name="cls12n", stride_px=1 << 16, channels=24, stage=12),
        )
    )
    head = build_head("depth-linear", "depth", pyramid, 0, seed=0, max_depth_m=80.0).eval()
    map_NCyx, token = torch.randn(2, 24, 5, 7), torch.randn(2, 24, 1, 1)
    both = torch.cat([map_NCyx, token.expand_as(map_NCyx)], dim=1)
    fine = torch.nn.functional.interpolate(both, size=(20, 28), mode="bilinear", align_corners=False)
    weights = head.classifier(fine).relu() + 0.1
    expected = (weights / weights.sum(1, keepdim=True) * head.depths_K[:, None, None]).sum(1)
    expected = torch.nn.functional.interpolate(expected[:, None], size=(70, 98), mode="bilinear")[:, 0]
    found = head({"b12n": map_NCyx, "cls12n": token}, [(70, 98)] * 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert found.min() > 0 and found.max() < 80


def test_warm_up_of_the_linear_head_ends() -> None:
    head = build_head("depth-linear", "depth", last_map(16), 0, seed=0, warm_up_steps=1)
    targets = [{"depth": (depths((64, 96)) * 1000).to(torch.uint16)}]
    features = {"p5": torch.randn(1, 16, 2, 3)}
    losses = [head.losses(features, targets, [(64, 96)])["loss_depth"].item() for _ in range(3)]
    assert losses[1] > losses[0] and losses[1] == losses[2]
    assert head.state_dict()["steps_done"] == 3


@pytest.mark.oracle
def test_dpt_equals_transformers() -> None:
    """DPT-Base's decoder over the four maps of ViT-B at 384 px, with equal weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.DPTConfig(readout_type="ignore", num_hidden_layers=12, is_hybrid=False)
    with torch.device("cpu"):
        oracle = transformers.DPTForDepthEstimation(config).eval()
    head = build_head("depth-dpt", "depth", four_blocks(768), 0, seed=0).eval()
    theirs = {**oracle.neck.state_dict(), **{f"head.{k}": v for k, v in oracle.head.state_dict().items()}}
    head.load_state_dict({name: theirs[_name_in_transformers(name)] for name in head.state_dict()})
    maps = [torch.randn(1, 768, 24, 24) for _ in range(4)]
    tokens = [torch.cat([torch.randn(1, 1, 768), x.flatten(2).mT], dim=1) for x in maps]
    with torch.no_grad():
        expected = oracle.head(oracle.neck(tokens, 24, 24))
        found = head.logits(maps)[:, 0].relu()
    assert expected.shape == (1, 384, 384)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _name_in_transformers(name: str) -> str:
    part, *rest = name.split(".")
    if part in ("projections", "rescales"):
        kind = "projection" if part == "projections" else "resize"
        return f"reassemble_stage.layers.{rest[0]}.{kind}.{rest[1]}"
    if part == "fusions":
        inner = {"of_map": "residual_layer1", "of_sum": "residual_layer2", "projection": "projection"}[
            rest[1]
        ]
        conv = {"first": "convolution1.", "second": "convolution2."}.get(rest[2], "")
        return f"fusion_stage.layers.{rest[0]}.{inner}.{conv}{rest[-1]}"
    if part in ("first", "last"):
        number = 0 if part == "first" else 2 + int(rest[0])
        return f"head.head.{number}.{rest[-1]}"
    return name


@pytest.mark.parametrize("name", ["depth-deconv2x32", "depth-linear", "depth-dpt"])
@pytest.mark.parametrize("stride_px", [14, 16, 32])
def test_every_pixel_has_a_depth_within_the_range(name: str, stride_px: int) -> None:
    if name == "depth-dpt":
        pyramid = four_blocks(24, stride_px)
    else:
        pyramid = PyramidSpec((Level(name="b12n", stride_px=stride_px, channels=24, stage=12),))
    head = build_head(name, "depth", pyramid, 0, seed=0, max_depth_m=20.0).eval()
    cells, padded = (3, 5), (3 * stride_px, 5 * stride_px)
    features = {level.name: torch.randn(2, 24, *cells) for level in pyramid}
    valid = [(padded[0] - 3, padded[1]), padded]
    found = head.predict(features, valid, [(31, 47), padded])
    assert [tuple(each.shape) for each in found] == [(31, 47), padded]
    assert all(each.min() > 0 and each.max() < 20 and each.dtype == torch.float32 for each in found)
    targets = [{"depth": (depths(padded, seed) * 1000).to(torch.uint16)} for seed in range(2)]
    losses = head.train().losses(features, targets, valid)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_what_a_head_refuses() -> None:
    assert set(head_names("depth")) == {"depth-deconv2x32", "depth-linear", "depth-dpt"}
    head = build_head("depth-deconv2x32", "depth", last_map(16), 0, seed=0)
    with pytest.raises(HeadError, match=r"shape \(1, 32, 32\), expected \(1, 64, 64\)"):
        head.losses(
            {"p5": torch.randn(1, 16, 2, 2)}, [{"depth": torch.ones(32, 32, dtype=torch.uint16)}], [(64, 64)]
        )
    with pytest.raises(HeadError, match=r"max_depth_m is 0.0"):
        build_head("depth-linear", "depth", last_map(16), 0, max_depth_m=0.0)
    with pytest.raises(HeadError, match="four blocks"):
        build_head("depth-dpt", "depth", last_map(16), 0)
