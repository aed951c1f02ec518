"""Two servers of S3, and azurite where it is installed: the same bytes as on a disk, in every direction."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pipelines.__main__ import main
from stores import open_store
from stores.checks.content import content_digest_of
from stores.checks.status import store_status
from stores.checks.verify import verify_store
from stores.remote.store_url import store_path
from stores.transfer.whole_store import copy_store
from tests.stores.remote.s3_servers import ask, keys, proxy_without_conditions
from tests.stores.remote.test_reading_urls import same
from tests.stores.remote.test_transfer import files_of

pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("credentials")]


def test_pushed_read_and_pulled_bytes_are_equal(local: Path, bucket: str, tmp_path: Path) -> None:
    root = store_path(f"{bucket}/features")
    pushed = copy_store(local, root)
    assert {key.partition("/")[2].partition("/")[2] for key in keys("features/", bucket)} == set(
        files_of(local)
    )
    with open_store(pushed.path) as remote, open_store(local) as on_disk:
        same(on_disk, remote)
    assert (
        content_digest_of(pushed.path) == content_digest_of(local) == store_status(pushed.path).content_digest
    )
    assert verify_store(pushed.path, full=True).ok
    assert copy_store(local, root).files == 0
    assert files_of(copy_store(pushed.path, tmp_path).path) == files_of(local)


def test_verbs(local: Path, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = f"{bucket}/verbs"

    def run(*words: str) -> dict:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    from tests.pipelines.made_stores import make_store  # needs torch, as pipelines do

    store = make_store(tmp_path / "stores", codec_name="int8")
    (store / "log").mkdir()
    (store / "log" / "a.jsonl").write_text('{"time": 1, "event": "begin", "command": ["x", "extract"]}\n')
    assert run("push", "--store", str(store), "--to", place, "--no-log")["ok"]
    assert not any("/log/" in key for key in keys("verbs/", bucket))
    assert run("push", "--store", str(store), "--to", place)["files"] == 1
    (entry,) = run("catalog", "--stores", place)["stores"]
    assert entry["folder"] == store.name and entry["complete"] and entry["levels"] == ["p2", "p3", "p4", "p5"]
    assert entry["bytes"] == sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    pulled = run(
        "pull", "--store", f"{place}/{store.name}", "--stores", str(tmp_path / "p"), "--levels", "p4"
    )
    assert pulled["ok"] and open_store(pulled["store"]).levels == ("p4",)
    page = tmp_path / "page.html"
    info = run("info", "--store", f"{place}/{store.name}", "--out", str(page))
    assert info["stores"][0]["bytes_on_disk"] == entry["bytes"]
    assert "in object storage" in page.read_text() and "python -m pipelines extract" in page.read_text()


def test_every_tenth_failure_loses_nothing(
    local: Path, endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = copy_store(local, store_path(f"{bucket}/tenth"))
    with proxy_without_conditions(endpoint, fails_every=10) as proxy:
        ask(proxy, bucket, monkeypatch)
        with open_store(pushed.path) as remote, open_store(local) as on_disk:
            same(on_disk, remote)


def test_every_tenth_failure_trains_the_same_head(
    endpoint: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight steps: the loss of each is that of training from the disk, to the last digit."""
    from tests.pipelines.made_stores import make_store  # needs torch, as pipelines do

    store = make_store(tmp_path / "stores", codec_name="int8")
    pushed = copy_store(store, store_path(f"{bucket}/trained"))
    refused: list[int] = []
    with proxy_without_conditions(endpoint, fails_every=10, failed=refused) as proxy:
        ask(proxy, bucket, monkeypatch)
        for name, place in (("disk", store), ("bucket", pushed.path)):
            run = str(tmp_path / name)
            words = ["train-head", "--head", "linear", "--store", str(place), "--run", run, "--device", "cpu"]
            assert main([*words, "--max-steps", "8", "--batch-size", "4", "--log-every", "1"]) == 0
    assert len(refused) >= 3
    disk, bucket = (
        [(row["step"], row["loss"]) for row in csv.DictReader((tmp_path / name / "metrics.csv").open())]
        for name in ("disk", "bucket")
    )
    assert len(disk) == 8 and disk == bucket
