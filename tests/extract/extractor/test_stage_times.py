"""How long a forward pass is measured: rows that take long are measured one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from extract.extractor import stage_times


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
    return done


@pytest.mark.parametrize(
    ("at_least_s", "expected"),
    [(0.5, [1]), (1.0, [1, 4, 4]), (4.0, [1, 4, 4]), (9.0, [1, 4, 4, 4, 4])],
)
def test_slow_rows_are_measured_alone_and_batches_for_so_long(
    at_least_s: float, expected: Sequence[int], passes: list[int]
) -> None:
    plan: Any = SimpleNamespace(bins=[SimpleNamespace(batch_rows=4, shard_rows=64)])
    backbone: Any = SimpleNamespace(device=torch.device("cpu"))
    first, of_row = stage_times.forward_seconds(plan, 0, backbone, at_least_s)
    assert passes == expected and of_row == 1.0 and first == 0.0
