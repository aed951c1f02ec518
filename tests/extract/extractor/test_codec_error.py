"""Which cells the codec's error is measured on, and that it is the error of the whole map."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.codecs.on_device import decode
from extract.extractor import codec_error
from extract.extractor.codec_error import CodecErrors, sample_cells
from extract.extractor.encode_batch import assemble, encode_batch
from extract.extractor.row_loader import LoadedRow
from stores.format.plan import Bin, ShardId, StorePlan
from stores.pyramid import Level, PyramidSpec
from tests.faults.made_stores import small_plan

SHARD = ShardId(0, 0)


def plan_of(rows: int, hw: tuple[int, int], channels: int, frames: int | None = None) -> StorePlan:
    """One shard of one level of stride 32."""
    level = Level(name="p5", stride_px=32, channels=channels, stage=4)
    b = Bin(height_px=32 * hw[0], width_px=32 * hw[1], rows=rows, shard_rows=1 << (rows - 1).bit_length())
    return replace(small_plan(bins=(b,), levels=(level,), targets=(), views=1), frames=frames)


class Features:
    """A backbone that answers with given features, float32 (N, y, x, C)."""

    device = torch.device("cpu")

    def __init__(self, plan: StorePlan, x: torch.Tensor) -> None:
        self.pyramid: PyramidSpec = plan.pyramid
        self.x = x

    def __call__(self, pixels_NHWC: torch.Tensor, valid_hw: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"p5": self.x}


def figures_of(plan: StorePlan, x: torch.Tensor) -> dict[str, float]:
    """Of a shard whose features are x (rows, y, x, C)."""
    hw = tuple(32 * size for size in x.shape[1:3])
    row = LoadedRow(pixels=torch.zeros(*hw, 3).byte().numpy(), valid_hw=hw, targets={}, source_sha256=b"")
    cells = sample_cells(plan, SHARD, range(len(x)))
    batch = encode_batch(Features(plan, x), plan, assemble([row] * len(x), hw, cells, torch.device("cpu")))
    errors = CodecErrors(None)
    errors.add(batch, list(range(len(x))))
    return errors.figures("a shard")["p5"]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 300),
    hw=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    channels=st.sampled_from([16, 48, 96, 768, 2048]),
    frames=st.sampled_from([None, 1, 16]),
)
def test_a_shards_maps_are_measured_all_over(
    rows: int, hw: tuple[int, int], channels: int, frames: int | None
) -> None:
    found = sample_cells(plan_of(rows, hw, channels, frames), SHARD, range(rows))["p5"]
    cells = (frames or 1) * hw[0] * hw[1]
    in_a_row = found.shape[1]
    assert found.shape == (rows, in_a_row) and found.min() >= 0 and found.max() < cells
    assert all(len(set(row)) == in_a_row for row in found.tolist()[:3])
    assert in_a_row == 1 or rows * in_a_row * channels <= codec_error.SAMPLE_VALUES
    share = int(rows * cells * channels * codec_error.SAMPLE_SHARE)
    wanted = max(codec_error.SAMPLE_CELLS * channels, min(codec_error.SAMPLE_VALUES, share))
    assert in_a_row == cells or rows * in_a_row * channels > wanted / (4 * hw[1])
    # Columns, and the parts of a map, take turns.
    taken = rows * in_a_row
    columns = torch.bincount(found.flatten() % hw[1], minlength=hw[1])
    assert columns.max() <= 3 * math.ceil(taken / hw[1])
    parts = torch.bincount(found.flatten() * 8 // cells, minlength=8)
    assert parts.max() <= 3 * math.ceil(taken / min(8, cells))


def test_positions_choose_the_cells_whatever_batch_they_come_in() -> None:
    plan = plan_of(300, (16, 16), 1024)
    whole, part = sample_cells(plan, SHARD, range(300))["p5"], sample_cells(plan, SHARD, [7, 2])["p5"]
    assert part.equal(whole[[7, 2]])


@pytest.mark.parametrize("loud", [(0, 0), (3, 5)])
@pytest.mark.ci
def test_one_outlier_does_not_hide_the_error_of_other_cells(
    loud: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so many rows that one cell of each is measured; nor does a quiet cell raise an alarm."""
    torch.manual_seed(0)
    x = torch.randn(512, 8, 8, 64)
    plan = plan_of(512, (8, 8), 64)
    monkeypatch.setattr(codec_error, "SAMPLE_SHARE", 1)
    for loudness, low, high in ((200, 0.01, 0.05), (0.005, 0.001, codec_error.WARN_MEDIAN)):
        x_changed = x.clone()
        x_changed[:, *loud] *= loudness
        monkeypatch.setattr(codec_error, "SAMPLE_VALUES", x.numel())
        exact = figures_of(plan, x_changed)
        monkeypatch.setattr(codec_error, "SAMPLE_VALUES", x.numel() // 64)
        found = figures_of(plan, x_changed)
        assert (found["cells"], exact["cells"]) == (512, 512 * 64)
        assert found["median"] == pytest.approx(exact["median"], rel=0.5)
        assert low < found["median"] < high


def test_cells_of_frames_are_decoded_with_their_frames_scale() -> None:
    torch.manual_seed(0)
    plan = plan_of(3, (2, 3), 5, frames=4)
    x = torch.randn(3, 4, 2, 3, 5) * torch.tensor([1.0, 10, 100, 1000]).view(4, 1, 1, 1)
    hw = (64, 96)
    pixels = torch.zeros(4, *hw, 3).byte().numpy()
    row = LoadedRow(pixels=pixels, valid_hw=hw, targets={}, source_sha256=b"")
    cells = sample_cells(plan, SHARD, range(3))
    for codec in ("int8", "float16", "int4"):
        backbone = Features(plan, x.flatten(0, 1))
        batch = encode_batch(
            backbone,
            replace(plan, codec=codec),
            assemble([row] * 3, (4, *hw), cells, torch.device("cpu")),
        )
        kept, decoded = batch.sample["p5"]
        at, by_cell = torch.arange(3)[:, None], decode(codec, batch.levels["p5"]).flatten(1, 3)
        assert kept.equal(x.flatten(1, 3)[at, cells["p5"]])
        assert decoded.equal(by_cell[at, cells["p5"]])
