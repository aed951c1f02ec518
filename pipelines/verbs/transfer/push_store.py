"""`push`: copies a complete store from a disk to object storage, or to another folder."""

from __future__ import annotations

from typing import Any

from pipelines.catalog.catalog_file import write_catalog
from pipelines.catalog.stores import describe_store
from pipelines.cli.progress_bar import counted
from pipelines.config import PushConfig
from pipelines.errors import UsageError
from pipelines.units import gigabytes
from pipelines.verbs.verify_store import Damaged
from stores.checks.verify import verify_store
from stores.reading.committed_store import read_committed
from stores.remote.store_url import StoreUrl, store_path
from stores.transfer.whole_store import copy_store, store_files


def run(config: PushConfig) -> dict[str, Any]:
    """Copies the store, compares the copy and writes catalog.json beside it. Repeated, it continues.

    Raises:
        UsageError: a store that is not on a disk, or a root that is read only.
        IdentityError: another store has the name of the copy.
        Damaged: the copy is not what the manifest says.
    """
    source, root = store_path(config.store), store_path(config.to)
    if isinstance(source, StoreUrl):
        raise UsageError(f"--store {source}: push copies from a disk; pull copies from a URL")
    if isinstance(root, StoreUrl) and not root.is_writable:
        raise UsageError(f"--to {root}: a web server is read only; copy to s3://, gs:// or az://")
    describe_store(source)  # says what is wrong with a path that is no store
    with counted("copying files", len(store_files(read_committed(source))) + 1) as on_file:
        done = _Count(on_file)
        copied = copy_store(source, root, with_log=not config.no_log, on_file=done)
    report = verify_store(copied.path, full=config.full)
    summary = {"store": str(copied.path), "files": copied.files, "bytes": copied.bytes, "ok": report.ok}
    if not report.ok:
        for problem in report.problems:
            print(f"  {problem.what}")
        raise Damaged({"stores": [{**summary, "problems": [p.what for p in report.problems]}], "ok": False})
    listed = write_catalog(root)
    print(f"{copied.path}: {copied.files} files copied, {gigabytes(copied.bytes)}; ok, "
          f"{'every byte' if config.full else 'structure and sizes'} compared")  # fmt: skip
    print(f"{root / 'catalog.json'}: {len(listed)} {'store' if len(listed) == 1 else 'stores'}")
    return summary


class _Count:
    """Reports how many files are done; threads call it."""

    def __init__(self, report: Any) -> None:
        self._report, self._done = report, 0

    def __call__(self) -> None:
        self._done += 1
        self._report(self._done, 0)
