"""A committed store made unfinished again: without its manifest and the receipts of some shards."""

import json
from pathlib import Path
from typing import Any

from stores.checks.problems import Problem, Repair, Report
from stores.checks.repair import carry_out, plan_repair
from stores.shards.receipt_pack import PACK_PATH


def forget(store: Path, *shards: str) -> None:
    """Removes the manifest and the receipts of these shards, such as "64x64-1", as a repair does."""
    common = {"store": str(store), "rows": (), "what": "forgotten"}
    problems = [Problem(**common, shard=None, repair=Repair.COMMIT)]
    problems += [Problem(**common, shard=name, repair=Repair.SHARD) for name in shards]
    carry_out(plan_repair(store, Report(problems=tuple(problems), bytes_read=0)))


def receipts_of(store: Path) -> list[dict[str, Any]]:
    """Every receipt of a committed store in the order of its plan."""
    return [json.loads(line) for line in (store / PACK_PATH).read_bytes().splitlines()]
