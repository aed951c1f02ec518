"""`plan`: what an extraction will take, before anything is written."""

from __future__ import annotations

from typing import Any

from extract.weights import WeightsUnavailable, require_source
from pipelines.byte_sizes import duration, gigabytes
from pipelines.config import PlanConfig
from pipelines.extraction import Extraction, free_bytes, prepare
from pipelines.speed_probe import Speed, TooLarge, measure_speed


def run(config: PlanConfig) -> dict[str, Any]:
    """Prints rows, bytes, bins, files, free space, time and whether caching pays; writes nothing."""
    extraction = prepare(config)
    summary = geometry(extraction)
    print_geometry(extraction, summary)
    try:
        require_source(extraction.card, config.weights)
    except WeightsUnavailable as error:  # the geometry and the speed do not depend on them
        print(f"  weights   MISSING: {error}")
    try:
        speed = measure_speed(extraction)
    except TooLarge as error:
        print(f"  time      not measured: {error}")
        return summary
    print_time(extraction, speed)
    return {**summary, **speed.to_json(), "estimated_seconds": speed.total_seconds(extraction)}


def geometry(extraction: Extraction) -> dict[str, Any]:
    """What the store will hold, in numbers."""
    estimate, plan = extraction.estimate, extraction.estimate.plan
    return {
        "name": plan.name,
        "records": len(extraction.dataset.records),
        "rows": len(plan.rows),
        "levels": dict(estimate.bytes_by_level),
        "bytes": estimate.total_bytes,
        "files": estimate.files,
        "bins": {b.name: b.rows for b in plan.bins},
        "shards": len(plan.shards()),
        "free_bytes": free_bytes(extraction.stores),
    }


def print_geometry(extraction: Extraction, summary: dict[str, Any]) -> None:
    """The numbers of `geometry` as text."""
    plan, views = extraction.estimate.plan, plan_views(extraction)
    print(f"{plan.name} under {extraction.stores}")
    print(f"  rows      {summary['rows']}: {summary['records']} records, {views}")
    if extraction.dataset.subset is not None:
        print(f"  subset    {len(extraction.dataset.subset)} records are filled, the rest stays empty")
    bins = ", ".join(f"{name} ({rows})" for name, rows in list(summary["bins"].items())[:6])
    more = f" and {len(plan.bins) - 6} more" if len(plan.bins) > 6 else ""
    print(f"  bins      {len(plan.bins)}: {bins}{more}")
    for level in plan.pyramid:
        size = summary["levels"][level.name]
        print(
            f"  level     {level.name}: stride {level.stride_px} px, {level.channels} channels, {plan.codec},"
            f" {gigabytes(size)} ({size / len(plan.rows) / 1e6:.2f} MB a row)"
        )
    print(
        f"  bytes     {gigabytes(summary['bytes'])} in {summary['files']} files, {summary['shards']} shards"
    )
    verdict = "fits" if summary["bytes"] <= summary["free_bytes"] else "DOES NOT FIT"
    print(f"  free      {gigabytes(summary['free_bytes'])} on {extraction.stores.absolute()}: {verdict}")


def plan_views(extraction: Extraction) -> str:
    """The views of a record in words."""
    count = extraction.estimate.plan.rows.view_count
    return f"{count} {'view' if count == 1 else 'views'} each ({extraction.recipe.name})"


def print_time(extraction: Extraction, speed: Speed) -> None:
    """How long the extraction takes here, and what a visit of a row costs with and without the store."""
    total, decode_ms = duration(speed.total_seconds(extraction)), speed.decode_seconds * 1e3
    print(
        f"  time      about {total} on {extraction.device}: {decode_ms:.0f} ms to decode a view on one of"
        f" {extraction.workers} threads, {speed.forward_seconds * 1e3:.0f} ms for its forward pass"
    )
    plan, sizes = extraction.estimate.plan, extraction.estimate.bytes_by_level
    row_bytes = sum(sizes.values()) / len(plan.rows)
    live = max(speed.forward_seconds, speed.decode_seconds / extraction.workers)
    print(
        f"  caching   a visit of a row reads {gigabytes(round(row_bytes))} instead of computing for"
        f" {live * 1e3:.0f} ms: it pays from epoch {plan.rows.view_count + 1} on, where reading is faster"
        f" than {row_bytes / live / 1e6:.0f} MB/s"
    )
