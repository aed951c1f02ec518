"""Repair of a damaged store: removes the receipts of its damaged shards, and with them its commit.

A shard without a receipt is written again by the extraction, the others stay. Where a commit packed the
receipts, their file is replaced by one without those lines; the next commit takes the rows of the other units
from the old packed shards, as far as their CRC32Cs hold. All generations of a shard's
receipt are removed, since an earlier one would describe bytes that were damaged and replaced. The manifest is
removed last: a repair that was killed leaves a store that is still damaged, and is repeated.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stores.checks.problems import Problem, Repair, Report
from stores.errors import FIX_PLAN
from stores.format.canonical_json import parse_canonical
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.format.plan import ShardId
from stores.shards.disk import Files, remove_if_there, replace_file, sync_folders
from stores.shards.receipt_pack import PACK_PATH, lines_of, unit_of

RECEIPTS = "receipts"


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairPlan:
    """What the repair of one store removes."""

    store: Path
    shards: tuple[str, ...]
    """Names of the damaged shards, such as "512x512-3"."""
    files: tuple[str, ...]
    """Paths from the root of the store, in the order of their removal."""
    unpacked: tuple[ShardId, ...]
    """Units whose receipts are taken out of the file of all receipts."""
    left: tuple[Problem, ...]
    """Problems that this repair does not solve; where one concerns the whole store, `files` is empty."""


def plan_repair(path: str | Path, report: Report) -> RepairPlan:
    """The repair of the store at `path`, of which `report` is the verification. Changes nothing."""
    root = Path(path)
    left = tuple(p for p in report.problems if p.repair not in (Repair.SHARD, Repair.COMMIT))
    shards = tuple(dict.fromkeys(p.shard for p in report.problems if p.shard is not None))
    is_needed = len(left) < len(report.problems)
    if not is_needed or any(problem.repair is Repair.NONE for problem in left):
        return RepairPlan(store=root, shards=shards, files=(), unpacked=(), left=left)
    receipts = [f"{RECEIPTS}/{name}" for name in receipts_of(shards, _names(root / RECEIPTS))]
    manifest = [MANIFEST_NAME] if os.path.lexists(root / MANIFEST_NAME) else []
    unpacked = tuple(_packed_of(root, shards)) if shards else ()
    pack = [PACK_PATH] if unpacked else []
    files = (*receipts, *pack, *manifest)
    return RepairPlan(store=root, shards=shards, files=files, unpacked=unpacked, left=left)


def _packed_of(root: Path, shards: Sequence[str]) -> list[ShardId]:
    """Those of the shards whose receipts a commit packed."""
    if not (root / PACK_PATH).is_file() or (root / RECEIPTS).is_symlink():
        return []
    content = parse_canonical((root / PLAN_NAME).read_bytes(), PLAN_NAME, FIX_PLAN)
    index = {f"{b['height_px']}x{b['width_px']}": number for number, b in enumerate(content["bins"])}
    wanted = {ShardId(index[name.rpartition("-")[0]], int(name.rpartition("-")[2])) for name in shards}
    return sorted(wanted & lines_of((root / PACK_PATH).read_bytes()).keys())


def receipts_of(shards: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of the file names that are receipts of these shards, the latest generation first.

    >>> receipts_of(["64x64-2"], ["64x64-2.json", "64x64-2.10.json", "64x64-20.json", "64x64-12.json"])
    ['64x64-2.10.json', '64x64-2.json']
    """
    wanted, found = set(shards), list[tuple[str, int, str]]()
    for name in names:
        parts = re.fullmatch(r"([0-9]+x[0-9]+-[0-9]+)(?:\.([1-9][0-9]*))?\.json", name, re.ASCII)
        if parts is not None and parts[1] in wanted:
            found.append((parts[1], -int(parts[2] or 0), name))
    return [name for _, _, name in sorted(found)]


def _names(folder: Path) -> Sequence[str]:
    """Empty where the folder is missing or a link, through which files of another store could be removed."""
    return os.listdir(folder) if folder.is_dir() and not folder.is_symlink() else []


def carry_out(repair: RepairPlan, files: Files | None = None) -> None:
    """Removes the files, the manifest last. May be repeated. Raises OSError where the disk refuses."""
    files = files or Files()
    receipts = [name for name in repair.files if name not in (MANIFEST_NAME, PACK_PATH)]
    for name in receipts:
        remove_if_there(files, repair.store / name)
    if repair.unpacked:
        data = (repair.store / PACK_PATH).read_bytes()
        kept = [line + b"\n" for line in data.split(b"\n") if line and unit_of(line) not in repair.unpacked]
        replace_file(files, repair.store / PACK_PATH, b"".join(kept), uuid.uuid4().hex)
    if receipts or repair.unpacked:
        sync_folders(files, [repair.store / RECEIPTS])
    if MANIFEST_NAME in repair.files:
        remove_if_there(files, repair.store / MANIFEST_NAME)
        sync_folders(files, [repair.store])
