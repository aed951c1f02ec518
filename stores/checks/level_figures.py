"""Rate and error of each level of a store, from the receipts of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stores.checks.status import plan_of_unfinished
from stores.format.canonical_json import sha256_hex
from stores.format.manifest import PLAN_NAME
from stores.format.plan import MAX_PLAN_BYTES, StorePlan
from stores.format.row_table import WRITTEN
from stores.remote.opening import files_of, open_folder
from stores.shards.finished import FinishedShards
from stores.shards.level_rates import level_rates
from stores.shards.receipts import Receipt

MOST_RECEIPTS = 256
"""Shards that are looked at, spread evenly: the receipts of a store of a million rows are a gigabyte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelFigures:
    """What a codec made of one level. Errors are relative to the standard deviation of a channel, see
    `stores.codecs.contract.error_figures`; None where the receipts record none."""

    bits_per_value: float
    """Stored, with scales: 8 and a little more of int8."""
    median: float | None
    """Error of the median channel: the median over shards."""
    worst: float | None
    """Error of the worst channel: the largest of a shard."""
    worst_channel: int | None
    shards: int
    """That were looked at."""


def level_figures(path: str | Path) -> dict[str, LevelFigures]:
    """Of the finished shards of a store, complete or not, by level; empty where none is finished.

    Reads small files only. Raises NoSuchStore where there is none, IntegrityError for a damaged plan.
    """
    folder = open_folder(path)
    plan = plan_of_unfinished(folder)
    if plan is None:
        return {}
    digest = sha256_hex(folder.read(PLAN_NAME, limit_bytes=MAX_PLAN_BYTES))
    finished = FinishedShards(files_of(folder.path), folder.path, plan, digest)
    shards = plan.shards()
    chosen = [shards[i * len(shards) // MOST_RECEIPTS] for i in range(MOST_RECEIPTS)]
    receipts = [finished.latest(shard)[1] for shard in (shards if len(shards) <= MOST_RECEIPTS else chosen)]
    return _figures(plan, [receipt for receipt in receipts if receipt and WRITTEN in receipt.outcome])


def _figures(plan: StorePlan, receipts: list[Receipt]) -> dict[str, LevelFigures]:
    if not receipts:
        return {}
    rates, values = [], []
    for receipt in receipts:
        b, written = plan.bins[receipt.shard.bin], receipt.outcome.count(WRITTEN)
        rates.append(level_rates(plan, receipt.shard, receipt.files, written))
        values.append(written * b.height_px * b.width_px)
    found = {}
    for level in plan.pyramid.names:
        errors = [error for receipt in receipts if (error := _error(receipt.errors.get(level)))]
        worst = max(errors, key=lambda error: error[1], default=None)
        found[level] = LevelFigures(
            bits_per_value=float(np.average([rate[level] for rate in rates], weights=values)),
            median=float(np.median([median for median, _, _ in errors])) if errors else None,
            worst=None if worst is None else worst[1],
            worst_channel=None if worst is None else int(worst[2]),
            shards=len(receipts),
        )
    return found


def _error(fields: object) -> tuple[float, float, float] | None:
    """Median, worst and worst channel of one receipt; None where it records none."""
    if not isinstance(fields, Mapping):
        return None
    median, worst, channel = (fields.get(name) for name in ("median", "worst", "worst_channel"))
    if any(type(value) not in (int, float) for value in (median, worst, channel)):
        return None
    return float(median), float(worst), float(channel)  # type: ignore[arg-type]
