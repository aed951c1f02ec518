"""Batches decoded ahead: a shard that is retried while its first try is still running."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from extract.extractor.batch_loader import loaded_batches
from extract.extractor.progress import Stopwatch
from stores.format.plan import Bin, ShardId
from tests.faults.made_stores import small_plan


class Loader:
    """Says what it was asked to load, and how often."""

    def __init__(self) -> None:
        self.loads: list[int] = []

    def load_views(self, rows: Sequence[int]) -> dict[int, Any]:
        self.loads += rows
        return {row: f"row {row}" for row in rows}


@pytest.mark.parametrize("after", range(8))
def test_a_shard_retried_during_its_first_try_gets_all_its_rows_twice(after: int) -> None:
    """Whichever of its batches was the last before that."""
    plan = small_plan(bins=(Bin(height_px=32, width_px=32, rows=8, shard_rows=8, batch_rows=1),), views=1)
    shard, loader = ShardId(0, 0), Loader()
    todo = deque([shard])
    found = []
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as assembler:
        batches: Any = loaded_batches(
            plan,
            todo,
            loader,
            pool,
            assembler,
            lambda batch, rows: list(rows),
            Stopwatch(),
            workers=8,
            batch_rows=None,  # type: ignore[arg-type]
        )
        for number, (batch, rows, made) in enumerate(batches):
            assert made == list(batch.rows)
            found.append((batch.is_first, batch.is_last, rows))
            if number == after:
                todo.append(shard)
    once = [(row == 0, row == 7, {row: f"row {row}"}) for row in range(8)]
    assert found == once * 2 and sorted(loader.loads) == sorted([*range(8)] * 2)
