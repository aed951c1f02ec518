"""Copies of stores between disks and URLs: equal bytes, continued where they stopped, parts as stores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import open_store
from stores.checks.verify import verify_store
from stores.errors import IdentityError, LevelMissing, PlanError
from stores.remote.store_url import store_path
from stores.transfer.part_of_store import fill_part, plan_of_part
from stores.transfer.whole_store import copy_store
from stores.writing.writer import StoreWriter
from tests.stores.remote.static_server import StaticServer


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_store_is_pulled_from_a_web_server_and_continued(
    url: str, server: StaticServer, local: Path, tmp_path: Path
) -> None:
    copied = copy_store(store_path(url), tmp_path)
    assert files_of(copied.path) == files_of(local) and copied.files == len(files_of(local))
    (copied.path / "MANIFEST.json").unlink()
    shard = copied.path / "bins/64x64/levels/p4/q/c.0.0.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    again = copy_store(store_path(url), tmp_path)
    assert again.files == 2 and files_of(copied.path) == files_of(local)
    assert copy_store(store_path(url), tmp_path).files == 0


def test_another_store_of_that_name_is_not_overwritten(url: str, local: Path, tmp_path: Path) -> None:
    shutil.copytree(local, tmp_path / local.name)
    manifest = tmp_path / local.name / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(IdentityError, match="another store"):
        copy_store(store_path(url), tmp_path)


def test_a_part_is_a_store_with_the_same_rows(url: str, local: Path, tmp_path: Path) -> None:
    with open_store(url) as whole:
        keys = set(whole.keys[1:4])
        writer = StoreWriter.open_or_create(tmp_path, plan_of_part(whole, ["p5"], keys))
        assert fill_part(whole, writer) == sum(key in keys for key in whole.keys)
        assert fill_part(whole, writer) == 0
        with pytest.raises(LevelMissing):
            plan_of_part(whole, ["p9"], None)
        with pytest.raises(PlanError, match="without 1 of 1"):
            plan_of_part(whole, None, {"nobody"})
    assert verify_store(writer.path, full=True).ok
    with open_store(writer.path) as part, open_store(local) as on_disk:
        assert part.levels == ("p5",) and part.identity_digest != on_disk.identity_digest
        for row, (key, view) in enumerate(zip(part.keys, part.views, strict=True)):
            there = on_disk.row_of(key, int(view))
            np.testing.assert_array_equal(part.read_features(row)["p5"], on_disk.read_features(there)["p5"])
            assert part.read_pixels(row).tobytes() == on_disk.read_pixels(there).tobytes()
            for name, target in part.read_targets(row)[0].items():
                np.testing.assert_array_equal(target, on_disk.read_targets(there)[0][name])


def test_verify_finds_damage_at_a_url(url: str, server: StaticServer, local: Path, tmp_path: Path) -> None:
    assert verify_store(url, full=True).ok
    damaged = tmp_path / local.name
    shutil.copytree(local, damaged)
    shard = damaged / "bins/64x64/levels/p5/q/c.1.0.0.0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    server.folder = tmp_path
    assert verify_store(url).ok
    (problem,) = verify_store(url, full=True).problems
    assert problem.shard == "64x64-1"
