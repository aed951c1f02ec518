"""`verify`: checks stores against their manifests, and sources against their digests; repairs shards."""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.catalog.stores import require_on_disk, stores_asked_for
from pipelines.config import VerifyConfig
from pipelines.errors import UsageError
from pipelines.units import gigabytes
from stores.checks.content import content_digest_of
from stores.checks.problems import Problem, Repair, Report
from stores.checks.repair import carry_out, plan_repair
from stores.checks.verify import verify_store
from stores.errors import FIX_MANIFEST, FIX_PLAN, IdentityError, IntegrityError
from stores.format.arrays import outcome_tables
from stores.reading.committed_store import CommittedStore, read_committed
from stores.shards.receipt_pack import PACK_PATH

logger = logging.getLogger(__name__)

MAX_LISTED_ROWS = 12
_AT_A_URL = (
    "without --repair it is checked where it is; to repair it, `pull` it (--verify sizes), repair the copy "
    "and `extract` into it, then delete the damaged store with the tools of the service and `push` the copy"
)


class Damaged(IntegrityError):
    """A damaged store; the message says how to repair it. Carries the summary."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary
        bad = [store for store in summary["stores"] if not store["ok"]]
        found = [problem for store in bad for problem in store["problems"]]
        problems = [p["what"] if p["store"] in p["what"] else f"{p['store']}: {p['what']}" for p in found]
        rest = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        super().__init__("; ".join(filter(None, (f"{problems[0]}{rest}", _remedy(bad[0], summary["full"])))))


def _remedy(store: Mapping[str, Any], full: bool) -> str:
    """How to repair a store, if its problems do not say so themselves."""
    texts = [problem["what"] for problem in store["problems"]]
    kinds = {Repair(problem["repair"]) for problem in store["problems"]}
    if Repair.NONE in kinds:
        says_how = any(text.endswith(FIX_PLAN) for text in texts)
        return "" if says_how else f"it is another store, or was changed: {FIX_PLAN}"
    if kinds & {Repair.SHARD, Repair.COMMIT}:
        repair = store.get("repair")
        if repair is None:
            says_how = all(text.endswith(FIX_MANIFEST) for text in texts)
            return "" if says_how else f"to repair it: {repair_command(store['store'], full)}"
        if not repair["removed"]:
            return f"to remove the {len(repair['files'])} files listed, repeat it with --yes"
    # One that is not finished says to run the extraction again.
    return "remove the files that are not part of the store" if Repair.FOREIGN in kinds else ""


def repair_command(store: str, full: bool) -> str:
    """The command that lists what a repair of the store removes."""
    return shlex.join(
        ["python", "-m", "pipelines", "verify", "--store", store, *["--full"] * full, "--repair"]
    )


def run(config: VerifyConfig) -> dict[str, Any]:
    """Prints what was checked, every problem and, with `repair`, every file that the repair removes.

    Raises:
        UsageError: the manifest's digest is none, or there are several stores to compare with it; `yes`
        alone. Damaged: a store is not what its manifest says, or has none, and was not repaired.
        IdentityError: with `source`, a source file is not the one its rows were made from.
    """
    stores, digest = [], config.manifest_digest and config.manifest_digest.lower()
    paths = stores_asked_for(config.store, config.stores)
    if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(f"--manifest-digest {digest}: expected 64 hexadecimal digits, a sha256")
    if digest is not None and len(paths) > 1:
        raise UsageError(f"--manifest-digest describes one store, found {len(paths)}; pass --store")
    if config.yes and not config.repair:
        raise UsageError("--yes confirms the removals of --repair, which was not passed; pass both")
    for path in paths if config.repair else ():
        require_on_disk(path, "--repair", _AT_A_URL)
    for path in paths:
        report = verify_store(path, full=config.full, manifest_digest=digest)
        content = content_digest_of(path) if config.content_digest and report.ok else None
        report = _with_content(path, report, content)
        _print(path, report, config.full)
        stores.append(_summary(path, report))
        if content is not None:
            stores[-1]["content_digest"] = content
            print(f"  content   {content}")
        if config.repair and not report.ok:
            stores[-1]["repair"] = _repair(path, report, confirmed=config.yes)
        if config.source and report.ok:
            stores[-1]["sources"] = check_sources(path, config.data)
            print(f"  {stores[-1]['sources']} source files match their recorded digests")
    summary = {"ok": all(store["ok"] for store in stores), "full": config.full, "stores": stores}
    if not all(store["ok"] or store.get("repair", {}).get("repaired") for store in stores):
        raise Damaged(summary)
    return summary


def _with_content(path: Path, report: Report, content: str | None) -> Report:
    """The report, with a problem where the rows have another content digest than the manifest says."""
    recorded = None if content is None else read_committed(path).manifest.content_digest
    if recorded in (None, content):
        return report
    what = f"the rows have the content digest {content}, the manifest says {recorded}"
    problem = Problem(store=str(path), shard=None, rows=(), what=what, repair=Repair.NONE)
    return replace(report, problems=(*report.problems, problem))


def _repair(path: Path, report: Report, *, confirmed: bool) -> dict[str, Any]:
    """Lists and, where confirmed, removes the files that the repair of a store removes."""
    repair = plan_repair(path, report)
    removed = confirmed and bool(repair.files)
    if removed:
        carry_out(repair)
    for name in repair.files:
        if name == PACK_PATH:
            receipts = f"{len(repair.unpacked)} of its receipts"
            print(f"  {'removed' if removed else 'to remove'} from {path / name}: {receipts}")
        else:
            print(f"  {'removed' if removed else 'to remove'}: {path / name}")
    if removed:
        shards = f"{len(repair.shards)} {'shard' if len(repair.shards) == 1 else 'shards'}"
        again = f"writes {shards} again" if repair.shards else "commits it again"
        print(f"{path}: repeat its `make extract` command, which {again}")
    elif not repair.files:
        print(f"{path}: nothing that --repair can remove")
    left = [problem for problem in repair.left if problem.repair is not Repair.RESUME]
    return {
        "shards": list(repair.shards),
        "files": list(repair.files),
        "removed": removed,
        "repaired": removed and not left,
    }


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
        {
            "store": problem.store,
            "shard": problem.shard,
            "rows": list(problem.rows),
            "what": problem.what,
            "repair": problem.repair.value,
        }
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
    from extract.datasets import open_dataset
    from extract.sources.byte_sources import SourceError

    store = read_committed(path)
    split = store.plan.identity["dataset"]
    dataset = open_dataset(split, data, split["split"])
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    expected = _digests_by_key(store)
    for key, digest in expected.items():
        field = f"sha256 of source {key}"
        if key not in index_of:
            raise IdentityError(field, digest, None, f"{data or 'the data set'} has no such record")
        try:
            found = hashlib.sha256(dataset.read_source(index_of[key])).hexdigest()
        except SourceError as error:  # listed by its annotation, and the file is gone
            raise IdentityError(field, digest, error.reason, "restore the file, or extract again") from error
        if found != digest:
            raise IdentityError(
                field, digest, found, f"the file changed after {path} was extracted; extract again"
            )
    return len(expected)


def _digests_by_key(store: CommittedStore) -> Mapping[str, str]:
    """The sha256 of every source file that was read; rows of one record share it."""
    source = store.table(outcome_tables(store.plan)["source"])
    digests = zip(store.plan.rows.keys, source, strict=True)
    return {key: bytes(digest).hex() for key, digest in digests if digest.any()}
