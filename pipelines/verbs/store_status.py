"""`status`: written, missing and skipped rows of a store, with the reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extract.sources.byte_sources import BAD_TARGET, NOT_IN_SUBSET
from pipelines.catalog.codec_lines import codec_lines, figures_of_level
from pipelines.catalog.skipped_rows import skipped_lines, unusable_text
from pipelines.catalog.stores import DamagedStores, describe_store, look_at_each, stores_asked_for
from pipelines.config import StoreConfig
from pipelines.engines.continue_line import continue_line
from pipelines.next_step import print_next
from stores.checks.level_figures import level_figures
from stores.checks.verify import store_status
from stores.format.row_table import OUTCOME_NAMES

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
    status, found, figures = store_status(path), describe_store(path), level_figures(path)
    skipped = [
        {"key": key, "view": view, "outcome": _OUTCOMES.get(code, str(code)), "reason": reason}
        for key, view, code, reason in status.skipped
        if code != NOT_IN_SUBSET
    ]
    line = None if status.complete else continue_line(path)
    return {
        "store": str(path),
        "continue": None if line is None else line.command,
        "unknown": None if line is None else line.unknown,
        "complete": status.complete,
        "content_digest": status.content_digest,
        "rows": status.rows,
        "unusable_annotations": found.identity["dataset"].get("unusable_annotations"),
        "rows_outside_subset": _rows_outside_subset(path, status.rows),
        "written": status.written,
        "skipped": skipped,
        "missing_shards": [str(shard) for shard in status.missing],
        "claimed_shards": dict(status.claimed),
        "codec": found.identity["codec"]["name"],
        "levels": {name: figures_of_level(figures, name) for name in found.levels},
    }


def _rows_outside_subset(path: Path, rows: int) -> int:
    """Planned rows outside the subset, from the plan: outcomes cover finished shards only."""
    dataset = describe_store(path).identity["dataset"]
    subset = dataset.get("subset")
    return 0 if subset is None else rows - rows * subset["count"] // dataset["records"]["count"]


def _print(store: dict[str, Any]) -> None:
    state = "complete" if store["complete"] else f"{len(store['missing_shards'])} shards are missing"
    skipped, outside = store["skipped"], store["rows_outside_subset"]
    rows = f"{store['rows'] - outside} rows" + (" of the subset" if outside else "")
    left_out = f" ({outside} rows outside the subset)" if outside else ""
    print(f"{store['store']}: {state}")
    print(f"  {store['written']} of {rows} written, {len(skipped)} skipped{left_out}")
    if store["content_digest"]:
        print(f"  content {store['content_digest']}")
    if unusable := store["unusable_annotations"]:
        print(f"  {unusable_text(unusable)}")
    for line in codec_lines(store["codec"], store["levels"]):
        print(f"  {line}")
    lines = skipped_lines((row["key"], row["view"], f"{row['outcome']}: {row['reason']}") for row in skipped)
    for line in lines[:MAX_LISTED]:
        print(f"    {line}")
    if len(lines) > MAX_LISTED:
        print(f"    and {len(lines) - MAX_LISTED} more; --json lists all")
    for who in sorted(set(store["claimed_shards"].values())):
        count = sum(each == who for each in store["claimed_shards"].values())
        print(f"  {count} of them claimed by {who}")
    if store["unknown"]:
        print(f"  to continue: {store['unknown']}")
    if store["continue"]:
        print_next(store["continue"])
