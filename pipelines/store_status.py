"""`status`: what stands in a store, what is missing, what was skipped and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extract.sources import BAD_TARGET
from pipelines.config import StoreConfig
from pipelines.skipped_rows import skipped_lines
from pipelines.stores_folder import DamagedStores, look_at_each, stores_asked_for
from stores.records import OUTCOME_NAMES
from stores.verify import store_status

MAX_LISTED = 50
"""Skipped records that are printed; `--json` gives all rows."""

_OUTCOMES = {**OUTCOME_NAMES, BAD_TARGET: "unusable annotation"}


def run(config: StoreConfig) -> dict[str, Any]:
    """Prints the state of one store, or of each under the folder; DamagedStores at the end."""
    stores, damaged = look_at_each(stores_asked_for(config.store, config.stores), _state)
    for store in stores:
        _print(store)
    summary = {"stores": stores, "damaged": damaged}
    if damaged:
        raise DamagedStores(summary)
    return summary


def _state(path: Path) -> dict[str, Any]:
    status = store_status(path)
    skipped = [
        {"key": key, "view": view, "outcome": _OUTCOMES.get(code, str(code)), "reason": reason}
        for key, view, code, reason in status.skipped
    ]
    return {
        "store": str(path),
        "complete": status.complete,
        "rows": status.rows,
        "written": status.written,
        "skipped": skipped,
        "missing_shards": [str(shard) for shard in status.missing],
    }


def _print(store: dict[str, Any]) -> None:
    state = "complete" if store["complete"] else f"{len(store['missing_shards'])} shards are missing"
    skipped = store["skipped"]
    print(f"{store['store']}: {state}")
    print(f"  {store['written']} of {store['rows']} rows written, {len(skipped)} skipped")
    lines = skipped_lines((row["key"], row["view"], f"{row['outcome']}: {row['reason']}") for row in skipped)
    for line in lines[:MAX_LISTED]:
        print(f"    {line}")
    if len(lines) > MAX_LISTED:
        print(f"    and {len(lines) - MAX_LISTED} more; --json lists all")
    if not store["complete"]:
        print("  run the `make extract` that began it again: it goes on where it stopped")
