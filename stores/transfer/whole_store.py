"""Copy of a complete store, file by file, from a disk to a URL or back; the manifest is copied last.

What is there with the right size is not copied again, so that a copy that was interrupted continues. Until
its manifest is there, a copy is an unfinished store to every reader.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stores.checks.packed_check import packed_paths
from stores.errors import IdentityError, NoSuchStore, SpaceError, StoreError
from stores.format.arrays import own_arrays
from stores.format.features import PACKED
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.reading.committed_store import CommittedStore, read_committed
from stores.remote.block_cache import BLOCK_BYTES
from stores.remote.object_client import client_of
from stores.remote.opening import open_folder
from stores.remote.remote_file import RemoteObject, fetch_threads
from stores.remote.store_url import StoreUrl
from stores.shards.disk import Files, folders_of, make_folders, partial_of, sync_folders
from stores.shards.receipts import receipt_path
from stores.work.folder import LOG

_AT_ONCE = 8
"""Files that are copied side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What a copy did."""

    path: Path
    """Of the copy."""
    files: int
    """Copied now; others were there."""
    bytes: int


def store_files(store: CommittedStore) -> list[str]:
    """Paths of all files of a store but its manifest, from the manifest and the plan: a web server lists
    none."""
    plan, found = store.plan, {*store.manifest.files, *packed_paths(store.plan)}
    for shard in plan.shards():
        found |= {spec.chunk_file(shard.shard) for spec in own_arrays(plan, shard.bin).values()}
        if PACKED not in plan.features:
            found.add(receipt_path(plan, shard, store.manifest.generations.get(shard, 0)))
    return sorted(found)


def copy_store(
    source: Path, root: Path, *, with_log: bool = False, on_file: Callable[[], None] = lambda: None
) -> Copied:
    """Copies a complete store into a folder of stores; one of both is a URL, or both are folders.

    Args:
        source: the store.
        root: folder or URL that holds stores; a folder is created.
        with_log: copies `log/` too, which may name hosts and times.
        on_file: called after each file.

    Raises:
        NoSuchStore, IncompleteStore, IntegrityError: of the source.
        IdentityError: another store has the name of the copy.
        SpaceError: the disk has no room.
        RemoteError: the server refused.
    """
    store = read_committed(source)
    target = root / source.name
    if isinstance(source, StoreUrl) and isinstance(target, StoreUrl):
        raise StoreError(f"{source} and {target} are both URLs: pull the store to a disk, then push it")
    _refuse_another(store, target)
    paths = store_files(store)
    if with_log:
        paths += [path for path in store.folder.files() if path.partition("/")[0] == LOG]
    if isinstance(target, StoreUrl):
        return _uploaded(store, target, paths, on_file)
    return _downloaded(store, target, paths, on_file)


def _refuse_another(store: CommittedStore, target: Path) -> None:
    """Raises IdentityError where the target holds another store."""
    try:
        folder = open_folder(target)
    except NoSuchStore:
        return
    for name in (MANIFEST_NAME, PLAN_NAME):
        if folder.has(name):
            ours = store.folder.read(name, limit_bytes=1 << 30)
            theirs = folder.read(name, limit_bytes=1 << 30)
            if ours != theirs:
                raise IdentityError(
                    name, f"that of {store.name}", "another", f"{target} is another store; move it away"
                )


def _uploaded(
    store: CommittedStore, target: StoreUrl, paths: Sequence[str], on_file: Callable[[], None]
) -> Copied:
    client, root = client_of(target.place), store.folder.path
    there = dict(client.listed(target.key))

    def upload(path: str) -> int:
        size, key = (root / path).stat().st_size, f"{target.key}/{path}"
        try:
            if there.get(key) == size:
                return 0
            client.put(key, lambda: (root / path).open("rb"))
            return size
        finally:
            on_file()

    return _copied(target, paths, upload)


def _downloaded(
    store: CommittedStore, target: Path, paths: Sequence[str], on_file: Callable[[], None]
) -> Copied:
    files, name = Files(), uuid.uuid4().hex
    target.mkdir(parents=True, exist_ok=True)
    needed, free = store.plan.total_bytes, files.free_bytes(target)
    have = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if needed - have > free:
        raise SpaceError(str(target), needed - have, free)
    for folder in sorted({path.rpartition("/")[0] for path in paths} - {""}):
        make_folders(files, target, folder)

    def download(path: str) -> int:
        try:
            return _fetch_file(store, path, target / path, name)
        finally:
            on_file()

    done = _copied(target, paths, download)
    sync_folders(files, folders_of(target, paths))
    return done


def _copied(target: Path, paths: Sequence[str], copy: Callable[[str], int]) -> Copied:
    """Runs the copies, the manifest's last."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="store-copy") as pool:
        sizes = list(pool.map(copy, paths))
    sizes.append(copy(MANIFEST_NAME))
    return Copied(path=target, files=sum(size > 0 for size in sizes), bytes=sum(sizes))


def _fetch_file(store: CommittedStore, path: str, target: Path, writer_id: str) -> int:
    source = store.folder.path / path
    if isinstance(source, StoreUrl):
        found = RemoteObject(client_of(source.place), source.key, str(source))
        size = found.look()
    else:
        found, size = None, source.stat().st_size
    if target.is_file() and target.stat().st_size == size:
        return 0
    own = partial_of(target, writer_id)
    fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        if found is None:
            shutil.copyfile(source, own)
        else:
            list(fetch_threads().map(partial(_fetch_block, found, size, fd), range(0, size, BLOCK_BYTES)))
        os.fsync(fd)
        os.replace(own, target)
    finally:
        os.close(fd)
        own.unlink(missing_ok=True)
    return size


def _fetch_block(source: RemoteObject, size: int, fd: int, start: int) -> None:
    data, at = source.fetch(start, min(start + BLOCK_BYTES, size)), 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], start + at)
