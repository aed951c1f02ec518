"""One summary of several processes of an extraction: what each did is added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import WorkFailed

_SUMMED = ("rows_written", "shards_written", "shards_lost", "images_per_s")
_TOTALS = ("total_rows_written", "total_rows_skipped")
"""Of all runs: the process that ended last knows all."""


def merged_summary(
    done: Sequence[Mapping[str, Any]], failed: Mapping[str, str], *, processes: int
) -> dict[str, Any]:
    """The summary of an extraction by several processes.

    Args:
        done: the summaries of those that did their work, as `--json` of `extract` has them.
        failed: how each other one ended, by name.
        processes: that were started.

    Raises WorkFailed, which holds the summary, where one failed.
    """
    merged: dict[str, Any] = {name: sum(each.get(name, 0) for each in done) for name in _SUMMED}
    merged |= {
        "skipped": [row for each in done for row in each["skipped"]],
        **{name: max((each.get(name, 0) for each in done), default=0) for name in _TOTALS},
        "store": next((each["store"] for each in done), None),
        "shards_left": min((each["shards_left"] for each in done), default=None),
        "stopped_by": next((each["stopped_by"] for each in done if each.get("stopped_by")), None),
        "manifest_digest": next((d for each in done if (d := each.get("manifest_digest"))), None),
        "seconds": max((each.get("seconds", 0.0) for each in done), default=0.0),
        "done_before": bool(done) and all(each["done_before"] for each in done),
        "processes": processes,
    }
    if failed:
        named = ", ".join(f"{name} {how}" for name, how in failed.items())
        raise WorkFailed(f"{named}; finished shards stay, and the same command continues", merged)
    return merged
