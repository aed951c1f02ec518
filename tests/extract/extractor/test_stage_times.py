"""Durations of measured forward passes: bounded, however long a row of the backbone takes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from extract.backbones.registry import backbone_card
from extract.extractor import stage_times
from stores.format.plan import Bin


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each forward pass; a row takes a second of the clock that is read here."""
    clock, done = [0.0], list[int]()

    def pass_of(_: object, __: object, rows: int) -> SimpleNamespace:
        done.append(rows)
        clock[0] += rows
        return SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(stage_times.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(stage_times, "encode_batch", pass_of)
    monkeypatch.setattr(stage_times, "assemble", lambda rows, *_: len(rows))
    monkeypatch.setattr(stage_times, "sample_cells", lambda *_: {})
    monkeypatch.setattr(stage_times, "view_shape", lambda *_: (32, 32))
    monkeypatch.setattr(stage_times, "_giant_row_seconds", lambda *_: None)
    return done


@pytest.mark.parametrize(
    ("at_least_s", "expected"),
    [(0.5, [1]), (1.0, [1, 2, 2]), (3.0, [1, 3, 3]), (4.0, [1, 4, 4]), (9.0, [1, 4, 4, 4, 4])],
)
def test_slow_rows_are_measured_alone_and_batches_for_so_long(
    at_least_s: float, expected: Sequence[int], passes: list[int]
) -> None:
    plan: Any = SimpleNamespace(bins=[SimpleNamespace(batch_rows=4, shard_rows=64)])
    backbone: Any = SimpleNamespace(device=torch.device("cpu"))
    first, of_row = stage_times.forward_seconds(plan, 0, backbone, at_least_s)
    assert passes == expected and of_row == 1.0 and first == 0.0


@pytest.mark.parametrize("frames", [None, 8])
def test_a_giant_row_is_computed_from_a_quarter_of_one_view(
    frames: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = backbone_card("swinv2-l")
    b = Bin(height_px=768, width_px=768, rows=64, shard_rows=64, batch_rows=4)
    plan: Any = SimpleNamespace(bins=[b], frames=frames)
    clock, seen = [0.0], []

    class Backbone:
        device = torch.device("cpu")

        def __call__(self, pixels: torch.Tensor, valid_hw: torch.Tensor) -> None:
            seen.append((tuple(pixels.shape), valid_hw.tolist()))
            clock[0] += 2.0

    Backbone.card = card  # type: ignore[attr-defined]
    monkeypatch.setattr(stage_times.time, "perf_counter", lambda: clock[0])
    first, of_row = stage_times.forward_seconds(plan, 0, Backbone(), 1.0)  # type: ignore[arg-type]
    assert seen == [((1, 384, 384, 3), [[384, 384]])]
    assert first == 0.0 and of_row == pytest.approx(2.0 * 4 * (frames or 1), rel=0.02)
