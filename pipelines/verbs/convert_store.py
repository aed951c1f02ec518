"""`convert`: a store of another codec from a complete one, without the backbone; it can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.catalog.codec_lines import codec_lines, figures_of_level
from pipelines.catalog.stores import local_folder, require_on_disk
from pipelines.cli.progress_bar import counted
from pipelines.cli.termination import termination_as_interrupt
from pipelines.config import ConvertConfig
from pipelines.errors import UsageError
from pipelines.forecast.planned_extraction import check_codec
from pipelines.units import gigabytes
from stores.checks.content import content_digest_of
from stores.checks.level_figures import level_figures
from stores.reading.reader import Store, open_store
from stores.remote.store_url import store_path
from stores.writing.convert import convert_shards, converted_plan, open_converted


def run(config: ConvertConfig) -> dict[str, Any]:
    """Writes the new store beside the old one, or below `--stores`.

    Raises:
        UsageError: an unknown codec, or the store's own; a URL.
        IncompleteStore, IntegrityError: the old store is unfinished or damaged.
        SpaceError: the new store does not fit; nothing was written.
    """
    check_codec(config.codec)
    old = store_path(config.store)
    require_on_disk(old, "convert", "`pull` the store, convert the copy and `push` the new one")
    folder = old.parent if config.stores is None else local_folder(config.stores)
    with open_store(old) as store, termination_as_interrupt():
        if config.codec == store.codec:
            raise UsageError(f"--codec {config.codec}: {old} has that codec already; choose another")
        plan = converted_plan(store, config.codec, _content_digest(store))
        writer = open_converted(store, plan, folder)
        done_before = writer.complete
        left = 0 if done_before else sum(len(plan.shard_rows(shard)) for shard in writer.pending())
        written = 0
        if not done_before:
            with counted(f"rows to be encoded as {config.codec}", left) as on_rows:
                written = convert_shards(store, writer, lambda done: on_rows(done, left))
        shards_left = len(writer.pending())
    return _report(old, writer.path, config.codec, written, done_before=done_before, left=shards_left)


def _content_digest(store: Store) -> str:
    """The recorded one; of stores of older layouts computed from every row."""
    return store.content_digest or content_digest_of(store.path)


def _report(
    old: Path, new: Path, codec: str, written: int, *, done_before: bool, left: int
) -> dict[str, Any]:
    sizes = {path: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) for path in (old, new)}
    figures = level_figures(new)
    levels = {level: figures_of_level(figures, level) for level in figures}
    print(f"{new} is complete: nothing to do" if done_before else f"{new}: {written} rows written")
    for line in codec_lines(codec, levels):
        print(f"  {line}")
    if left:
        print(f"  {left} shards are left: other processes work on them, or run the same command again")
    share = sizes[new] / sizes[old]
    print(f"  on disk   {gigabytes(sizes[new])}, {share:.0%} of {old.name}'s {gigabytes(sizes[old])}")
    return {
        "store": str(new),
        "converted_from": str(old),
        "rows_written": written,
        "shards_left": left,
        "done_before": done_before,
        "levels": levels,
        "bytes": sizes[new],
        "bytes_before": sizes[old],
    }
