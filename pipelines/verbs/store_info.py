"""`info`: identity, geometry and sizes of a store; reads small files only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.catalog.codec_lines import codec_lines, figures_of_level
from pipelines.catalog.skipped_rows import unusable_text
from pipelines.catalog.stores import DamagedStores, look_at_each, stores_asked_for
from pipelines.cli.help_text import word_lines
from pipelines.config import InfoConfig
from pipelines.errors import UsageError
from pipelines.runs.same_source import window_rule_of
from pipelines.units import gigabytes
from stores.checks.level_figures import level_figures
from stores.errors import IncompleteStore
from stores.format.arrays import sharded_arrays
from stores.format.plan import StorePlan
from stores.format.printable import escaped
from stores.reading.committed_store import read_manifest, read_plan
from stores.remote.opening import bytes_below, open_folder

MAX_LISTED = 8
"""Entries of a list that are printed."""
NO_CONTENT_DIGEST = "no digest recorded by older releases; verify --content-digest computes it"


def run(config: InfoConfig) -> dict[str, Any]:
    """Prints identity and sizes of one store, or of each under the folder; DamagedStores at the end.

    Raises UsageError for a page of several stores, or of another ending than .html.
    """
    if config.out is not None and Path(config.out).suffix.lower() != ".html":
        raise UsageError(f"--out {config.out}: expected a name that ends with .html")
    stores, damaged = look_at_each(stores_asked_for(config.store, config.stores), described_store)
    for store in stores:
        _print(store)
    if stores:
        print("\n".join(["words:", *word_lines()]))
    if config.out is not None:
        _write_page(stores, Path(config.out), config.data)
    summary = {"stores": stores, "damaged": damaged}
    if damaged:
        raise DamagedStores(summary)
    return summary


def _write_page(stores: Sequence[Mapping[str, Any]], path: Path, data: str | None) -> None:
    if len(stores) != 1:
        raise UsageError(f"--out {path}: a page shows one store, found {len(stores)}; pass --store")
    # Late: the text alone needs no template, and opens no features.
    from pipelines.pages.store_page import write_store_page

    write_store_page(stores[0], flat_identity(stores[0]["identity"]), path, data)
    print(f"written: {path}")


def described_store(path: Path) -> dict[str, Any]:
    folder = open_folder(path)
    plan = read_plan(folder, None)
    try:
        manifest, digest = read_manifest(folder)
        manifest_digest: str | None = digest
        content_digest = manifest.content_digest
    except IncompleteStore:
        manifest_digest = content_digest = None
    figures = level_figures(path)
    return {
        "store": str(path),
        "complete": manifest_digest is not None,
        "manifest_digest": manifest_digest,
        "content_digest": content_digest,
        "features": sorted(plan.features),
        "identity_digest": plan.identity_digest,
        "identity": plan.identity,
        "unusable_annotations": plan.identity["dataset"].get("unusable_annotations"),
        "window_rule": window_rule_of(plan.identity["backbone"]),
        "rows": len(plan.rows),
        "records": len(set(plan.rows.keys)),
        "bins": [
            {"name": b.name, "rows": b.rows, "shards": b.shards, "shard_rows": b.shard_rows}
            for b in plan.bins
        ],
        "levels": {
            name: {**fields, **figures_of_level(figures, name)} for name, fields in _levels(plan).items()
        },
        "targets": [target.name for target in plan.targets],
        "pixels": plan.pixels,
        "planned_bytes": plan.total_bytes,
        "bytes_on_disk": bytes_below(path),
    }


def _levels(plan: StorePlan) -> dict[str, dict[str, int]]:
    sizes = dict.fromkeys(plan.pyramid.names, 0)
    for index, b in enumerate(plan.bins):
        for name, spec in sharded_arrays(plan, index).items():
            if name.startswith("levels/"):
                sizes[name.split("/")[1]] += spec.row_bytes * b.rows
    return {
        level.name: {
            "stride_px": int(level.stride_px),
            "channels": level.channels,
            "bytes": sizes[level.name],
        }
        for level in plan.pyramid
    }


def _print(store: Mapping[str, Any]) -> None:
    state = f"manifest {store['manifest_digest']}" if store["complete"] else "unfinished"
    print(f"{store['store']}: {state}")
    print(f"  rows      {store['rows']} of {store['records']} records, targets {', '.join(store['targets'])}")
    if unusable := store["unusable_annotations"]:
        print(f"  unusable  {unusable_text(unusable)}")
    bins = ", ".join(
        f"{b['name']} ({b['rows']} rows in shards of {b['shard_rows']})" for b in store["bins"][:8]
    )
    more = f" and {len(store['bins']) - 8} more" if len(store["bins"]) > 8 else ""
    print(f"  bins      {bins}{more}")
    for name, level in store["levels"].items():
        size = gigabytes(level["bytes"])
        print(f"  level     {name}: stride {level['stride_px']} px, {level['channels']} channels, {size}")
    if store["window_rule"] is not None:
        windows = ", ".join(f"{rows}x{columns}" for rows, columns in store["identity"]["backbone"]["windows"])
        print(f"  windows   {windows}, rule {store['window_rule']}")
    for line in codec_lines(store["identity"]["codec"]["name"], store["levels"]):
        print(f"  {line}")
    there = store["bytes_on_disk"]
    stored = "unknown, a web server lists no files" if there is None else gigabytes(there)
    print(f"  on disk   {stored}, planned {gigabytes(store['planned_bytes'])}")
    if store["complete"]:
        print(f"  content   {store['content_digest'] or NO_CONTENT_DIGEST}")
    print(f"  identity  {store['identity_digest']}")
    for field, value in flat_identity(store["identity"]):
        print(f"    {escaped(field)}: {escaped(_shortened(value))}")


def _shortened(value: Any) -> Any:
    """A long list by its first entries, as of class names; `--json` has all.

    >>> _shortened([1, 2, 3]), _shortened(list(range(150)))
    ([1, 2, 3], '[0, 1, 2, 3, 4, 5, 6, 7, ... 150 in all]')
    """
    if not isinstance(value, list) or len(value) <= MAX_LISTED:
        return value
    return f"[{', '.join(map(str, value[:MAX_LISTED]))}, ... {len(value)} in all]"


def flat_identity(identity: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for field, value in identity.items():
        if isinstance(value, Mapping):
            found += flat_identity(value, f"{prefix}{field}.")
        else:
            found.append((prefix + field, value))
    return found
