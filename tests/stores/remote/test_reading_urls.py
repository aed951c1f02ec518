"""Stores at URLs: the rows of the local store or an error, from every way of reading and every fault."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import open_store
from stores.errors import ChangedObject, IntegrityError, NoSuchStore, RemoteError
from stores.reading.reader import Store
from stores.remote.block_cache import block_cache
from stores.remote.store_url import BadUrl, NotOnDisk, store_path
from tests.stores.remote.static_server import StaticServer, serving


def same(a: Store, b: Store) -> None:
    """Every array of every row is equal."""
    assert a.keys == b.keys
    for one, other in zip(a, b, strict=True):
        for level, features in one.features.items():
            np.testing.assert_array_equal(features, other.features[level])
        assert one.targets.keys() == other.targets.keys()
        for name, target in one.targets.items():
            np.testing.assert_array_equal(target, other.targets[name])
    np.testing.assert_array_equal(a.read_pixels([0, 3]), b.read_pixels([0, 3]))


@pytest.mark.parametrize("gigabytes", ["1", "0", "1e-6"])
def test_rows_are_those_of_the_disk(
    local: Path, url: str, gigabytes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERMAFROST_CACHE_GB", gigabytes)  # kept; kept in memory or streamed
    with open_store(local) as on_disk, open_store(url) as remote:
        same(on_disk, remote)
        same(on_disk, remote)


def test_a_filled_cache_asks_for_no_shard_again(url: str, server: StaticServer, local: Path) -> None:
    with open_store(url) as store:
        list(store)
        store.read_pixels([0, 3])
    before = len(server.ranges_of("/bins/"))
    assert before > 0
    with open_store(url) as store, open_store(local) as on_disk:
        same(on_disk, store)
    assert len(server.ranges_of("/bins/")) == before


def test_ranges_are_absolute_and_demand_the_first_etag(url: str, server: StaticServer, monkeypatch) -> None:
    monkeypatch.setenv("PERMAFROST_CACHE_GB", "0")
    with open_store(url) as store:
        store.read_encoded([0, 9, 2])
    asked = server.ranges_of("/bins/")
    assert asked and all(not each.startswith("bytes=-") and not each.endswith("-") for each in asked)
    of_shard = [match for _, path, each, match in server.requests if each and "p4/q/c.0" in path]
    assert len(of_shard) > 1 and None not in of_shard[1:]


def test_neighbours_are_fetched_together(url: str, server: StaticServer, monkeypatch) -> None:
    monkeypatch.setenv("PERMAFROST_CACHE_GB", "0")
    with open_store(url) as store:
        store.read_encoded([0], "p5")
        before = len(server.ranges_of("p5/q"))
        store.read_encoded([0, 1, 2, 3], "p5")
        assert len(server.ranges_of("p5/q")) == before + 1


def test_batches_fetched_ahead_ask_for_no_block_twice(url: str, server: StaticServer, local: Path) -> None:
    with open_store(url) as store, open_store(local) as on_disk:
        for rows in ([0, 9, 2], [3, 10, 1], [1, 2, 3]):
            store.prefetch(rows, ("p4", "p5"))
        np.testing.assert_array_equal(store.read_features([2, 9])["p4"], on_disk.read_features([2, 9])["p4"])
    asked = [(path, each) for _, path, each, _ in server.requests if each and "/bins/" in path]
    assert len(asked) == len(set(asked)) > 0


@pytest.mark.parametrize("gigabytes", ["1", "0"])
@pytest.mark.parametrize("length", [-1, 100, 0])
def test_an_object_of_another_length_is_refused(
    length: int, gigabytes: str, tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERMAFROST_CACHE_GB", gigabytes)
    served = tmp_path / "served" / "store"
    shutil.copytree(local, served)
    shard = served / "bins/64x64/levels/p4/q/c.0.0.0.0"
    shard.write_bytes(shard.read_bytes()[:length] if length else shard.read_bytes() + b"more")
    with serving(tmp_path / "served") as server, open_store(f"{server.url}/store") as store:
        store.prefetch([0], ("p4",))
        with pytest.raises(IntegrityError, match=r"c\.0\.0\.0\.0 (has|ends)"):
            store.read_encoded([0], "p4")


def test_a_damaged_cache_is_fetched_again(
    url: str, own_cache: Path, server: StaticServer, local: Path
) -> None:
    with open_store(url) as store:
        list(store)
    for data in own_cache.glob("blocks/*/*.blocks"):
        size = data.stat().st_size
        data.write_bytes(b"\xff" * size)
    with open_store(url) as store, open_store(local) as on_disk:
        same(on_disk, store)


def test_the_cache_stays_below_its_bound(url: str, own_cache: Path, monkeypatch) -> None:
    with open_store(url) as store:
        list(store)
    one = max(path.stat().st_blocks for path in own_cache.glob("blocks/*/*.blocks")) * 512
    whole = block_cache().used_bytes
    monkeypatch.setenv("PERMAFROST_CACHE_GB", f"{(whole - one) / 1e9:.9f}")
    cache = block_cache()
    cache.added(one)
    assert 0 < cache.used_bytes <= cache.bound
    with open_store(url) as store:
        list(store)
    assert cache.used_bytes <= cache.bound + 2 * 4096  # disks keep whole blocks


def test_a_full_disk_costs_speed_and_no_row(url: str, local: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stores.remote.block_cache.BlockFile.put", full)
    with open_store(url) as store, open_store(local) as on_disk:
        same(on_disk, store)


def test_another_store_at_the_same_url_is_not_read_from_the_cache(tmp_path: Path, local: Path) -> None:
    served = tmp_path / "served" / "store"
    shutil.copytree(local, served)
    with serving(tmp_path / "served") as server:
        with open_store(f"{server.url}/store") as store:
            list(store)
        damaged = served / "bins/64x64/levels/p4/q/c.0.0.0.0"
        damaged.write_bytes(b"\0" * damaged.stat().st_size)
        with open_store(f"{server.url}/store") as store:  # the manifest says what the bytes are
            list(store)
        (served / "MANIFEST.json").write_bytes(b"{}")
        with pytest.raises(IntegrityError):
            open_store(f"{server.url}/store")


@pytest.mark.parametrize("fault", [500, 429, 503, "cut", "short", "wrong range"])
def test_two_failures_of_each_request_are_survived(
    fault: str | int, url: str, server: StaticServer, local: Path
) -> None:
    seen: dict[tuple[str, str | None], int] = {}

    def twice(path: str, number: int) -> str | int | None:
        key = path, server.requests[number - 1][2]
        seen[key] = seen.get(key, 0) + 1
        return fault if "/bins/" in path and seen[key] <= 2 else None

    server.fault = twice
    with open_store(url) as store, open_store(local) as on_disk:
        np.testing.assert_array_equal(store.read_features([0, 9])["p4"], on_disk.read_features([0, 9])["p4"])


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (403, RemoteError, "access refused (HTTP 403)"),
        (401, RemoteError, "access refused (HTTP 401)"),
        (404, IntegrityError, "is missing"),
        (500, RemoteError, "HTTP 500 after retries"),
        ("cut", RemoteError, "cut off"),
        ("short", RemoteError, "cuts answers off"),
        ("wrong range", RemoteError, "another range"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_lasting_faults_are_named(
    fault: str | int,
    error: type[Exception],
    says: str,
    when: str,
    url: str,
    server: StaticServer,
    monkeypatch,
) -> None:
    monkeypatch.setattr("stores.remote.object_client.RETRIES", 1)
    monkeypatch.setattr("stores.remote.object_client.LONGEST_PAUSE_S", 0.001)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"new-client-{fault}-{when}")
    monkeypatch.setenv("PERMAFROST_CACHE_GB", "0")
    with open_store(url) as store:
        if when == "after":
            store.read_encoded([0])
        server.fault = lambda path, _: fault if "/q/" in path else None
        with pytest.raises(error) as caught:
            store.read_encoded([0])
    assert says in str(caught.value) and "AKIDSECRET" not in str(caught.value)


def test_a_missing_store_and_a_refused_one_are_told_apart(url: str, server: StaticServer) -> None:
    with pytest.raises(NoSuchStore):
        open_store(f"{server.url}/other")
    server.fault = lambda *_: 403
    with pytest.raises(RemoteError, match="403"):
        open_store(url)


def test_an_object_that_is_replaced_raises(tmp_path: Path, local: Path, monkeypatch) -> None:
    monkeypatch.setenv("PERMAFROST_CACHE_GB", "0")
    served = tmp_path / "served" / "store"
    shutil.copytree(local, served)
    with serving(tmp_path / "served") as server, open_store(f"{server.url}/store") as store:
        store.read_encoded([0])
        shard = served / "bins/64x64/levels/p4/q/c.0.0.0.0"
        shard.write_bytes(shard.read_bytes()[::-1])
        with pytest.raises(ChangedObject, match="replaced"):
            store.read_encoded([1])


def test_a_server_without_ranges_is_refused_with_its_reason(url: str, server: StaticServer) -> None:
    server.ranges = False
    with open_store(url) as store, pytest.raises(RemoteError, match="range with the whole file"):
        store.read_encoded([0])


def test_a_store_of_a_url_is_pickled(url: str, local: Path) -> None:
    with open_store(url) as store:
        again = pickle.loads(pickle.dumps(store))
    with open_store(local) as on_disk, again:
        np.testing.assert_array_equal(again.read_features([1])["p5"], on_disk.read_features([1])["p5"])


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/x",
        "s3://",
        "https://user:pw@host/x",
        "https://host/x?X-Amz-Signature=secret",
        "s3://b/../c",
    ],
)
def test_urls_that_no_store_can_be_at_are_refused(text: str) -> None:
    with pytest.raises(BadUrl) as caught:
        store_path(text)
    assert "secret" not in str(caught.value).replace("may be secret", "") and "pw" not in str(caught.value)


def test_a_url_is_never_a_local_file() -> None:
    url = store_path("s3://bucket/a/store")
    assert str(url / "plan.json") == "s3://bucket/a/store/plan.json" and url.parent.name == "a"
    for use in (url.mkdir, url.touch, url.stat, lambda: Path.read_text(url), url.unlink):
        with pytest.raises(NotOnDisk):
            use()
