"""`verify`: checks stores against their manifests, and source files against their recorded digests."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.catalog.stores import stores_asked_for
from pipelines.config import VerifyConfig
from pipelines.errors import UsageError
from pipelines.units import gigabytes
from stores.checks.verify import Problem, Report, verify_store
from stores.errors import FIX_MANIFEST, FIX_PLAN, IdentityError, IntegrityError
from stores.format.arrays import outcome_tables
from stores.format.manifest import MANIFEST_NAME
from stores.reading.committed_store import CommittedStore, read_committed

logger = logging.getLogger(__name__)

MAX_LISTED_ROWS = 12
MAX_LISTED_SHARDS = 4


class Damaged(IntegrityError):
    """A damaged store; the message says how to repair it. Carries the summary."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary
        found = [problem for store in summary["stores"] for problem in store["problems"]]
        problems = [p["what"] if p["store"] in p["what"] else f"{p['store']}: {p['what']}" for p in found]
        rest = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        super().__init__("; ".join(filter(None, (f"{problems[0]}{rest}", _remedy(found)))))


def _remedy(found: Sequence[Mapping[str, Any]]) -> str:
    """How to repair the first store, if its problems do not say so themselves.

    Shards without a receipt are done again, the others stay.
    """
    store = Path(found[0]["store"])
    problems = [problem for problem in found if problem["store"] == str(store)]
    is_complete = (store / MANIFEST_NAME).exists()
    of_the_whole = [problem["what"] for problem in problems if problem["shard"] is None]
    if is_complete and of_the_whole:
        says_how = any(what.endswith((FIX_MANIFEST, FIX_PLAN)) for what in of_the_whole)
        return "" if says_how else f"it is another store, or was changed: {FIX_PLAN}"
    shards = sorted({problem["shard"] for problem in problems} - {None})
    if not shards:  # it is not finished, and says to run it again
        return ""
    files = [MANIFEST_NAME] * is_complete + [f"receipts/{name}*.json" for name in shards[:MAX_LISTED_SHARDS]]
    more = f" and the receipts of {len(shards) - MAX_LISTED_SHARDS} more" * (len(shards) > MAX_LISTED_SHARDS)
    delete = f"delete {', '.join(files)}{more} there"
    return f"to repair it, {delete} and repeat its extraction"


def run(config: VerifyConfig) -> dict[str, Any]:
    """Prints what was checked and every problem.

    Raises:
        UsageError: the digest is none, or there are several stores to compare with it.
        Damaged: a store is not what its manifest says, or has none.
        IdentityError: with `source`, a source file is not the one its rows were made from.
    """
    stores, digest = [], config.manifest_digest and config.manifest_digest.lower()
    paths = stores_asked_for(config.store, config.stores)
    if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(f"--manifest-digest {digest}: expected 64 hexadecimal digits, a sha256")
    if digest is not None and len(paths) > 1:
        raise UsageError(f"--manifest-digest describes one store, found {len(paths)}; pass --store")
    for path in paths:
        report = verify_store(path, full=config.full, manifest_digest=digest)
        _print(path, report, config.full)
        stores.append(_summary(path, report))
        if config.source and report.ok:
            stores[-1]["sources"] = check_sources(path, config.data)
            print(f"  {stores[-1]['sources']} source files match their recorded digests")
    summary = {"ok": all(store["ok"] for store in stores), "full": config.full, "stores": stores}
    if not summary["ok"]:
        raise Damaged(summary)
    return summary


def require_whole(path: Path) -> None:
    """Raises Damaged where structure or sizes of a complete store are not what its manifest says."""
    report = verify_store(path)
    if not report.ok:
        raise Damaged({"ok": False, "full": False, "stores": [_summary(path, report)]})


def _print(path: Path, report: Report, full: bool) -> None:
    what = "every byte" if full else "structure and sizes"
    verdict = "ok" if report.ok else f"{len(report.problems)} problems"
    print(f"{path}: {verdict}, {what} compared, {gigabytes(report.bytes_read)} read")
    for problem in report.problems:
        print(f"  {_where(problem)}{problem.what}")


def _where(problem: Problem) -> str:
    shard = f"shard {problem.shard}, " if problem.shard is not None else ""
    return f"{shard}{_rows(problem.rows)}" if problem.rows else (f"{shard.rstrip(', ')}: " if shard else "")


def _rows(rows: Sequence[int]) -> str:
    listed = ", ".join(map(str, rows[:MAX_LISTED_ROWS]))
    more = f" and {len(rows) - MAX_LISTED_ROWS} more" if len(rows) > MAX_LISTED_ROWS else ""
    return f"rows {listed}{more}: "


def _summary(path: Path, report: Report) -> dict[str, Any]:
    problems = [
        {"store": problem.store, "shard": problem.shard, "rows": list(problem.rows), "what": problem.what}
        for problem in report.problems
    ]
    return {"store": str(path), "ok": report.ok, "bytes_read": report.bytes_read, "problems": problems}


def check_sources(path: Path, data: str | None) -> int:
    """Compares the data set's files with the digests taken while the store was made. Returns how many.

    Raises:
        IdentityError: a file is gone or another; names its record and both digests.
        DatasetLayoutError: `data` is not the data set.
    """
    # Late: its packages are needed for --source only.
    from extract.datasets import dataset_module, open_dataset

    store = read_committed(path)
    split = store.plan.identity["dataset"]
    dataset_module(split["name"], split.get("package"))
    dataset = open_dataset(split["name"], data, split["split"])
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    expected = _digests_by_key(store)
    for key, digest in expected.items():
        field = f"sha256 of source {key}"
        if key not in index_of:
            raise IdentityError(field, digest, None, f"{data or 'the data set'} has no such record")
        found = hashlib.sha256(dataset.read_source(index_of[key])).hexdigest()
        if found != digest:
            raise IdentityError(
                field, digest, found, f"the file changed after {path} was extracted; extract again"
            )
    return len(expected)


def _digests_by_key(store: CommittedStore) -> Mapping[str, str]:
    """The sha256 of every source file that was read; rows of one record share it."""
    source = store.table(outcome_tables(len(store.plan.rows))["source"])
    digests = zip(store.plan.rows.keys, source, strict=True)
    return {key: bytes(digest).hex() for key, digest in digests if digest.any()}
