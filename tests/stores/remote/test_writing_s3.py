"""Extraction into S3: the arrays of a local one, exactly one winner, and what a killed writer leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.forecast.exclusive_probe import require_exclusive
from stores.checks.content import content_digest_of
from stores.checks.status import store_status
from stores.checks.verify import verify_store
from stores.remote.opening import files_of
from stores.remote.remote_files import RemoteFiles
from stores.remote.store_url import store_path
from stores.shards.exclusive import write_exclusive
from stores.transfer.whole_store import copy_store
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import MadeRows, fill_shard
from tests.stores.remote.s3_servers import ask, keys, proxy_without_conditions
from tests.stores.remote.test_transfer import files_of as local_files

pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("credentials")]


def fill(writer: StoreWriter, rows: MadeRows) -> None:
    for shard in writer.pending():
        fill_shard(writer, shard, rows)
    writer.finish()


def test_a_written_store_is_that_of_a_disk(rows: MadeRows, local: Path, bucket: str, tmp_path: Path) -> None:
    writer = StoreWriter.open_or_create(store_path(f"{bucket}/w"), rows.plan)
    first, *_ = writer.pending()
    fill_shard(writer, first, rows)
    status = store_status(writer.path)
    assert not status.complete and status.written == 4 and len(status.missing) == 5
    fill(StoreWriter.open_or_create(store_path(f"{bucket}/w"), rows.plan), rows)
    assert verify_store(writer.path, full=True).ok
    assert content_digest_of(writer.path) == content_digest_of(local)
    there, here = local_files(copy_store(writer.path, tmp_path).path), local_files(local)
    assert {path for path in here if there[path] != here[path]} <= {"MANIFEST.json", "receipts/packed.jsonl"}
    assert {key.partition(f"{local.name}/")[2] for key in keys("w/", bucket)} == set(here)  # no work/ is left
    assert not any(b"etag" in data.lower() for path, data in there.items() if path.endswith("json"))


def test_a_receipt_without_copies_is_finished_by_the_next(
    rows: MadeRows, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store_path(f"{bucket}/killed")
    writer = StoreWriter.open_or_create(root, rows.plan)
    shard = writer.pending()[0]
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFiles, "rename", _killed)
        with pytest.raises(KeyboardInterrupt):
            fill_shard(writer, shard, rows)
    assert any("/work/" in key and "/bins/" in key for key in keys("killed/", bucket))
    again = StoreWriter.open_or_create(root, rows.plan)
    assert shard not in again.pending()
    fill(again, rows)
    assert verify_store(again.path, full=True).ok and not any(
        "/work/" in key for key in keys("killed/", bucket)
    )


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_of_eight_that_create_one_file_one_wins(rows: MadeRows, bucket: str) -> None:
    root = store_path(f"{bucket}/race")

    def create(number: int) -> bool:
        return write_exclusive(files_of(root), root / "receipts/a.json", b"%d" % number, "ab" * 16)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def test_two_writers_of_one_shard_leave_one(rows: MadeRows, bucket: str) -> None:
    root = store_path(f"{bucket}/two")
    a, b = (StoreWriter.open_or_create(root, rows.plan) for _ in range(2))
    shard = a.pending()[0]
    name = a.plan.shard_name(shard)
    assert a.claims.take(name) and not b.claims.take(name) and b.claims.others().keys() == {name}
    a.claims.beat(now=True)
    assert fill_shard(a, shard, rows) and not fill_shard(b, shard, rows)
    a.claims.release(name)
    assert b.claims.take(name)
    b.claims.release_all()
    fill(b, rows)
    assert verify_store(a.path, full=True).ok


def test_a_server_that_ignores_conditions_is_refused_by_name(
    endpoint: str, rows: MadeRows, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bucket.startswith("az"):
        pytest.skip("Azure signs conditions: without one the request is refused")
    root = store_path(f"{bucket}/ignored")
    require_exclusive(root, single_writer=False)
    with proxy_without_conditions(endpoint) as proxy:
        ask(proxy, bucket, monkeypatch)
        with pytest.raises(UsageError, match=f"{proxy} ignores If-None-Match.*--single-writer"):
            require_exclusive(root, single_writer=False)
        require_exclusive(root, single_writer=True)
        files = files_of(root / rows.plan.folder_name, single_writer=True)
        fill(StoreWriter.open_or_create(root, rows.plan, files=files), rows)
    ask(endpoint, bucket, monkeypatch)
    assert verify_store(root / rows.plan.folder_name, full=True).ok
    assert not any("probe" in key for key in keys("ignored", bucket))
