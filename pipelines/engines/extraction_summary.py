"""Summary of an extraction: the last lines of `extract` and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.extractor.run import Summary
from extract.sources.byte_sources import NOT_IN_SUBSET
from pipelines.catalog.skipped_rows import skipped_lines
from pipelines.catalog.stores import TRAINING, describe_store
from pipelines.catalog.usual_heads import usual_heads
from pipelines.cli.progress_bar import BOTTLENECKS
from pipelines.engines.parts import ChosenPart
from pipelines.engines.stop_request import StopRequest
from pipelines.next_step import command, print_next
from pipelines.units import duration, gigabytes
from stores.checks.verify import gc_orphans, store_status
from stores.remote.store_url import StoreUrl, store_path
from stores.writing.writer import StoreWriter

MAX_LISTED = 20
"""Skipped records that are printed; `status` lists more."""


def print_summary(
    writer: StoreWriter,
    summary: Summary,
    totals: tuple[int, int],
    chosen: ChosenPart | None,
    stop: StopRequest,
) -> None:
    _print_skipped(summary.skipped, writer.path)
    took = f"in {duration(summary.seconds)}"
    if summary.rows_written:  # without rows there is no speed
        took += (
            f" ({summary.images_per_s:.1f} rows/s, {gigabytes(summary.bytes)};"
            f" bottleneck: {BOTTLENECKS[summary.bottleneck]})"
        )
    line = f"{summary.rows_written} rows written, {len(summary.skipped)} skipped, {took}"
    if summary.shards < len(writer.plan.shards()):  # the others are of earlier runs
        written, skipped = totals
        line = f"{written} rows, {skipped} skipped; in this run {line}"
    left = summary.shards_left
    if not left:
        print(f"{writer.path} is complete: {line}")
    elif stop.reason is not None:
        print(f"{writer.path} is not complete, stopped by {stop.reason}: {_shards(left)} left; {line}")
    elif chosen is not None:
        print(f"{writer.path}: part {chosen.part} is done, {_shards(left)} left elsewhere; {line}")
    if summary.shards_elsewhere:
        lost = f", {summary.shards_lost} of them computed here too" if summary.shards_lost else ""
        print(f"  meanwhile other processes finished {_shards(summary.shards_elsewhere)}{lost}")
    if summary.shards < len(writer.plan.shards()):
        _print_orphans(writer.path)
    if not left:
        print_next_head(writer.path)
        return
    others = {holder.describe() for holder in writer.claims.others().values() if holder}
    if others:
        print(f"  at work: {', '.join(sorted(others))}")
    print("  the same command continues, and completes the store when nothing else is left")
    print_next(command("status", store=writer.path))


def _shards(count: int) -> str:
    return f"{count} shard{'' if count == 1 else 's'}"


def print_processes(summary: Mapping[str, Any]) -> None:
    """The last lines of several processes' extraction: what they did together."""
    _print_skipped([(row["key"], row["view"], row["reason"]) for row in summary["skipped"]], summary["store"])
    left, by = summary["shards_left"], summary["stopped_by"]
    state = "is complete" if not left else f"is not complete, {_shards(left)} left"
    state += f", stopped by {by}" if left and by else ""
    written, skipped = summary["total_rows_written"], summary["total_rows_skipped"]
    print(
        f"{summary['store']} {state}: {written} rows, {skipped} skipped; in this run "
        f"{summary['rows_written']} rows written, {len(summary['skipped'])} skipped "
        f"by {summary['processes']} processes in {duration(summary['seconds'])}"
    )
    if not summary["done_before"]:
        _print_orphans(store_path(summary["store"]))
    if not left:
        print_next_head(Path(summary["store"]))
    else:
        print_next(command("status", store=summary["store"]))


def _print_orphans(store: Path) -> None:
    """What processes that were killed left in a local store, and how it is removed."""
    if isinstance(store, StoreUrl) or not (orphans := gc_orphans(store)):
        return
    size, files = gigabytes(sum(orphan.bytes for orphan in orphans)), "file" if len(orphans) == 1 else "files"
    print(
        f"  {len(orphans)} {files} ({size}) of interrupted runs are no part of the store; to remove: "
        f"{command('gc', store=store)} --delete"
    )


def _print_skipped(skipped: Sequence[tuple[str, int, str]], store: Path | str) -> None:
    lines = skipped_lines(skipped)
    for line in lines[:MAX_LISTED]:
        print(f"  skipped   {line}")
    if len(lines) > MAX_LISTED:
        print(f"  skipped   {len(lines) - MAX_LISTED} more: python -m pipelines status --store {store}")


def print_next_head(path: Path) -> None:
    """A head of the task, trained from this store; from a training store, if this one is for tests."""
    store = describe_store(path)
    head = usual_heads(store.identity["dataset"]["task"], store.levels)[0]
    is_training = store.purpose == TRAINING
    where = {"store": path} if is_training else {"stores": path.parent}
    print_next(command("train-head", head=head, **where))


def totals_of(writer: StoreWriter) -> tuple[int, int]:
    """Rows written and skipped by all runs, without those outside a subset."""
    status = store_status(writer.path)
    return status.written, sum(code != NOT_IN_SUBSET for _, _, code, _ in status.skipped)


def summary_fields(summary: Summary, totals: tuple[int, int]) -> dict[str, Any]:
    """Of this run, but for the totals."""
    total_written, total_skipped = totals
    return {
        "rows_written": summary.rows_written,
        "skipped": [{"key": key, "view": view, "reason": reason} for key, view, reason in summary.skipped],
        "total_rows_written": total_written,
        "total_rows_skipped": total_skipped,
        "shards_written": summary.shards,
        "shards_elsewhere": summary.shards_elsewhere,
        "shards_lost": summary.shards_lost,
        "shards_left": summary.shards_left,
        "seconds": summary.seconds,
        "images_per_s": summary.images_per_s,
        "bottleneck": summary.bottleneck,
        "manifest_digest": summary.manifest_digest,
    }
