"""`pull`: copies a complete store, or some levels or records of it, from a URL to a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.catalog.stores import describe_store, local_folder
from pipelines.cli.progress_bar import counted
from pipelines.config import PullConfig
from pipelines.units import gigabytes
from pipelines.verbs.verify_store import Damaged
from stores.checks.verify import verify_store
from stores.reading.reader import open_store
from stores.remote.store_url import store_path
from stores.small_files import read_small_text
from stores.transfer.part_of_store import fill_part, plan_of_part
from stores.transfer.whole_store import copy_store
from stores.writing.writer import StoreWriter


def run(config: PullConfig) -> dict[str, Any]:
    """Copies the store and compares the copy. Repeated, it continues.

    Raises:
        LevelMissing, PlanError: the store holds no such level or record.
        IdentityError: another store has the name of the copy.
        SpaceError: the disk has no room.
        Damaged: the copy is not what its manifest says.
    """
    source, root = store_path(config.store), local_folder(config.stores)
    describe_store(source)
    is_part = config.levels is not None or config.rows is not None
    path, copied = _part(config, source, root) if is_part else _whole(source, root)
    report = verify_store(path, full=config.verify == "full")
    summary = {"store": str(path), "ok": report.ok, **copied}
    if not report.ok:
        for problem in report.problems:
            print(f"  {problem.what}")
        raise Damaged({"stores": [{**summary, "problems": [p.what for p in report.problems]}], "ok": False})
    compared = "every byte" if config.verify == "full" else "structure and sizes"
    print(f"{path}: ok, {compared} compared")
    return summary


def _whole(source: Path, root: Path) -> tuple[Path, dict[str, int]]:
    copied = copy_store(source, root)
    print(f"{source}: {copied.files} files copied, {gigabytes(copied.bytes)}")
    return copied.path, {"files": copied.files, "bytes": copied.bytes}


def _part(config: PullConfig, source: Path, root: Path) -> tuple[Path, dict[str, int]]:
    keys = None
    if config.rows is not None:
        keys = {line.strip() for line in read_small_text(config.rows).splitlines()} - {""}
    with open_store(source) as store:
        plan = plan_of_part(store, config.levels, keys)
        writer = StoreWriter.open_or_create(root, plan)
        done = 0
        with counted("copying rows", len(plan.rows)) as on_row:

            def report(rows: int) -> None:
                nonlocal done
                done += rows
                on_row(done, len(plan.rows))

            rows = fill_part(store, writer, report)
    print(f"{source}: {rows} of {len(store)} rows copied, levels {', '.join(plan.pyramid.names)}")
    return writer.path, {"rows": rows}
