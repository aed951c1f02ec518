"""Hostile stores: refused with a clear error, without running code, blocking or using much memory."""

import hashlib
import json
import os
import re
import shutil
import tracemalloc

import pytest

from stores import open_store
from stores.checks.verify import store_status, verify_store
from stores.errors import FormatError, IntegrityError, StoreError
from stores.format.canonical_json import canonical_json
from stores.writing.writer import StoreWriter
from tests.faults.made_stores import MadeRows, extract, small_plan


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    rows, root = MadeRows(small_plan(pixels=True)), tmp_path_factory.mktemp("pristine")
    extract(root, rows)
    return root / rows.plan.folder_name


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / pristine.name)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def forge_plan(path, change):
    """Edits plan.json and makes the manifest agree, as an author of a store could."""
    plan = json.loads((path / "plan.json").read_bytes())
    change(plan)
    data = canonical_json(plan)
    (path / "plan.json").write_bytes(data)
    forge_manifest(path, lambda manifest: manifest["files"].update({"plan.json": sha256(data)}))


def forge_manifest(path, change):
    manifest = json.loads((path / "MANIFEST.json").read_bytes())
    change(manifest)
    (path / "MANIFEST.json").write_bytes(canonical_json(manifest))


def forge_table(path, name, data):
    (path / name).write_bytes(data)
    forge_manifest(path, lambda manifest: manifest["files"].update({name: sha256(data)}))


def refusal(path):
    """The error of opening and reading everything; asserts that little memory was used."""
    tracemalloc.start()
    try:
        with open_store(path, threads=1) as store:
            for row in range(len(store)):
                store.read_encoded([row])
                store.read_targets([row])
                store.read_pixels([row])
    except StoreError as error:
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        assert len(str(error)) < 2000
        return error
    finally:
        tracemalloc.stop()
    return None


def set_at(*keys, to):
    def change(plan):
        inner = plan
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_at("codec", "name", to="pickle"), "unknown codec 'pickle'"),
        (set_at("codec", "name", to="os.system"), "unknown codec"),
        (set_at("codec", "name", to="../../int8"), "unknown codec"),
        (set_at("codec", "name", to="int4"), "needs the required features .*int4-blocks"),
        (set_at("codec", "settings", to={"level": 9}), "no settings"),
        (set_at("codec", to="int8"), "TypeError"),
        (set_at("targets", 0, "dtype", to="object"), "dtype 'object'"),
        (set_at("targets", 0, "dtype", to="O,O"), "dtype"),
        (set_at("targets", 0, "kind", to="pickled"), "kind 'pickled'"),
        (set_at("targets", 0, "shape", to=[1 << 60]), "size"),
        (set_at("targets", 0, "shape", to=[1 << 20, 1 << 20]), "exceeds"),
        (set_at("targets", 0, "name", to="../evil"), "target name"),
        (set_at("targets", 1, "cap_bytes", to=1 << 60), "cap_bytes"),
        (set_at("targets", to=[]), None),  # a store without targets is a store
        (set_at("levels", 0, "channels", to=1 << 60), "channels"),
        (set_at("levels", 0, "channels", to=-1), "channels"),
        (set_at("levels", 0, "channels", to="3"), "channels"),
        (set_at("levels", 0, "name", to="../p5"), "level name"),
        (set_at("levels", to=[]), "at least one level"),
        (set_at("bins", 0, "rows", to=1 << 60), "rows"),
        (set_at("bins", 0, "height_px", to=1 << 60), "px"),
        (set_at("bins", 0, "shard_rows", to=1 << 60), "shard_rows"),
        (set_at("bins", 0, "extra", to=1), "TypeError"),
        (set_at("rows", "count", to=1 << 60), "rows.count"),
        (set_at("rows", "count", to=1 << 22), "48 bytes, expected"),
        (set_at("rows", "count", to=2.5), "rows.count"),
        (set_at("rows", "key_bytes", to=1 << 40), "rows.key_bytes"),
        (set_at("rows", "sha256", "view", to="0" * 64), "rows/view was changed"),
        (set_at("frames", to=1 << 40), "frames"),
        (set_at("view_params", to=["p"] * 5000), "view_params"),
        (set_at("identity", to=[1]), "identity"),
        (set_at("identity", to={"other": 1}), "manifest is of the identity"),
        (set_at("required_features", to=["dreams", "int4"]), "'dreams', 'int4'"),
        (set_at("optional_features", to=["dreams"]), None),
        (set_at("format", "version", to=2), "version 2.*a newer release"),
        (set_at("format", "version", to=0), "version 0.*an older release"),
        (set_at("format", "name", to="zarr"), "not of the format"),
        (set_at("format", to=None), "not of the format"),
    ],
)
def test_plans(path, change, words):
    forge_plan(path, change)
    error = refusal(path)
    if words is None:
        assert error is None
    else:
        assert isinstance(error, IntegrityError), "it was opened"
        assert re.search(words, str(error)), error
        assert not verify_store(path).ok


@pytest.mark.parametrize("version", [0, 2])
def test_a_manifest_of_another_version(path, version):
    forge_manifest(path, set_at("format", "version", to=version))
    assert isinstance(refusal(path), FormatError)
    assert str(version) in verify_store(path).problems[0].what


def test_a_writer_refuses_what_a_reader_refuses(path):
    """A resumed extraction finds a plan of a newer program."""
    (path / "MANIFEST.json").unlink()
    plan = json.loads((path / "plan.json").read_bytes())
    (path / "plan.json").write_bytes(canonical_json({**plan, "required_features": ["dreams"]}))
    with pytest.raises(FormatError, match="dreams"):
        StoreWriter.open_or_create(path.parent, small_plan(pixels=True))
    with pytest.raises(FormatError, match="dreams"):
        store_status(path)


@pytest.mark.parametrize("name", ["MANIFEST.json", "plan.json"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"\x80\x04",
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b'{"format":{"name":"permafrost-store","version":1}}',
        b'{"n":' + b"1" * 100_000 + b"}",
    ],
)
def test_json_of_every_bad_kind(path, name, data):
    (path / name).write_bytes(data)
    if name == "plan.json":
        forge_manifest(path, lambda manifest: manifest["files"].update({name: sha256(data)}))
    assert isinstance(refusal(path), IntegrityError)
    assert not verify_store(path).ok


@pytest.mark.parametrize("name", ["MANIFEST.json", "plan.json", "rows/view/c/0", "rows/outcome/c/0"])
def test_huge_files_are_not_read(path, name):
    """Sparse files of 1 TiB that take no space on the disk."""
    os.truncate(path / name, 1 << 40)
    assert isinstance(refusal(path), IntegrityError)
    assert not verify_store(path).ok


def shard_file(path, name):
    return next(p for p in sorted((path / f"bins/32x64/{name}/c/0").rglob("*")) if p.is_file())


@pytest.mark.parametrize("name", ["levels/p5/q", "levels/p5/scale", "targets/labels", "pixels"])
def test_links_out_of_the_store_are_not_followed(path, name, tmp_path):
    file = shard_file(path, name)
    outside = file.rename(tmp_path / "outside")
    file.symlink_to(outside)  # equal bytes, but through a link
    assert "symbolic link" in str(refusal(path))
    assert not verify_store(path).ok


@pytest.mark.parametrize("name", ["bins", "bins/32x64/levels", "rows", "receipts"])
def test_folders_that_are_links_are_not_followed(path, name, tmp_path):
    outside = (path / name).rename(tmp_path / "outside")
    (path / name).symlink_to(outside)
    if name != "receipts":  # which a reader does not open
        assert isinstance(refusal(path), IntegrityError)
    assert not verify_store(path).ok


@pytest.mark.parametrize("name", ["MANIFEST.json", "plan.json"])
def test_small_files_that_are_links_are_not_followed(path, name, tmp_path):
    outside = (path / name).rename(tmp_path / "outside")
    (path / name).symlink_to(outside)
    assert "symbolic link" in str(refusal(path))


@pytest.mark.parametrize("name", ["levels/p5/q", "targets/labels"])
def test_pipes_and_folders_in_place_of_shards(path, name):
    file = shard_file(path, name)
    file.unlink()
    os.mkfifo(file)  # opening one without O_NONBLOCK would block forever
    assert "not a regular file" in str(refusal(path))
    file.unlink()
    file.mkdir()
    assert "not a regular file" in str(refusal(path))


def test_unlisted_arrays_are_never_opened(path):
    evil = path / "bins/32x64/levels/p2/q"
    evil.mkdir(parents=True)
    (evil / "zarr.json").write_text("{}")
    with open_store(path) as store:
        assert store.levels == ("p5",)
    assert [p.what for p in verify_store(path).problems] == [
        "bins/32x64/levels/p2/q/zarr.json is not part of the store"
    ]


def test_a_manifest_that_lists_too_few_files(path):
    def forget(manifest):
        del manifest["files"]["bins/32x64/levels/p5/crc/c/0"]

    forge_manifest(path, forget)
    assert "levels/p5/crc" in str(refusal(path))
    assert not verify_store(path).ok


def test_holes_marked_as_written(path):
    plan = small_plan(pixels=True)
    forge_table(path, "rows/outcome/c/0", bytes(len(plan.rows)))
    assert "skipped rows" in str(refusal(path))
    forge_manifest(path, lambda manifest: manifest.update(skipped=[]))
    assert "index" in str(refusal(path))


@pytest.mark.parametrize("index", [b"\x07\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"])
def test_row_tables_that_contradict_the_plan(path, index):
    data = index * 6
    forge_table(path, "rows/bin/c/0", data)
    forge_plan(path, set_at("rows", "sha256", "bin", to=sha256(data)))
    assert isinstance(refusal(path), FormatError)


def test_ragged_lengths_beyond_their_cap(path):
    name = "bins/32x64/targets/original_labels_bytes/c/0"
    for value in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x01\0\0\0"):
        forge_table(path, name, value * 3)
        assert isinstance(refusal(path), IntegrityError)
