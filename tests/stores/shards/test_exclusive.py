"""Exclusive creation: which way a disk offers, lost replies, and disks that cannot sync."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from stores.errors import NoExclusiveCreation
from stores.shards import disk
from stores.shards.disk import Files, replace_file
from stores.shards.exclusive import (
    LINK,
    RENAME,
    SINGLE_WRITER,
    exclusive_way,
    publish,
    write_exclusive,
)
from stores.shards.linux_calls import rename_noreplace
from tests.faults.disks_without_links import NO_LINK_ERRORS, refuse


def files_of(*, link: int | None = None, rename: int | None = None, single_writer: bool = False) -> Files:
    """Files whose `link` and `rename_exclusive` fail with these errors."""
    files = Files(single_writer=single_writer)
    for name, code in (("link", link), ("rename_exclusive", rename)):
        if code is not None:
            setattr(files, name, lambda *_, code=code: refuse(code))
    return files


def test_rename_noreplace_is_the_kernel_s(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "\u00fc target"
    source.write_text("1")
    rename_noreplace(source, target)
    assert (target.read_text(), source.exists()) == ("1", False)
    source.write_text("2")
    with pytest.raises(FileExistsError):
        rename_noreplace(source, target)
    assert (target.read_text(), source.read_text()) == ("1", "2")
    with pytest.raises(FileNotFoundError) as raised:
        rename_noreplace(tmp_path / "none", tmp_path / "other")
    assert raised.value.filename.endswith("none")


@pytest.mark.parametrize("code", NO_LINK_ERRORS)
def test_the_way_that_a_disk_offers(tmp_path: Path, code: int) -> None:
    assert exclusive_way(Files(), tmp_path) == LINK
    assert exclusive_way(files_of(link=code), tmp_path) == RENAME
    for rename in (errno.EINVAL, errno.ENOSYS):
        assert exclusive_way(files_of(link=code, rename=rename), tmp_path) is None
        promised = files_of(link=code, rename=rename, single_writer=True)
        assert exclusive_way(promised, tmp_path) == SINGLE_WRITER
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("files", [Files(), files_of(link=errno.EPERM)])
def test_other_errors_are_not_taken_for_a_missing_feature(tmp_path: Path, files: Files) -> None:
    name = "rename_exclusive" if "link" in vars(files) else "link"
    setattr(files, name, lambda *_: refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as raised:
        write_exclusive(files, tmp_path / "a", b"1", "w")
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("single_writer", [False, True])
@pytest.mark.parametrize("rename", [None, errno.EINVAL])
@pytest.mark.parametrize("link", [None, errno.EPERM])
def test_the_first_content_stays(
    tmp_path: Path, link: int | None, rename: int | None, single_writer: bool
) -> None:
    files = files_of(link=link, rename=rename, single_writer=single_writer)
    if link and rename and not single_writer:
        with pytest.raises(NoExclusiveCreation):
            write_exclusive(files, tmp_path / "a", b"1", "w")
        assert not list(tmp_path.iterdir())
        return
    assert write_exclusive(files, tmp_path / "a", b"1", "w")
    assert not write_exclusive(files, tmp_path / "a", b"2", "v")
    assert write_exclusive(files, tmp_path / "a", b"1", "w"), "a repeated request, or the same content"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"1")]


def test_a_lost_reply_of_an_exclusive_rename(tmp_path: Path) -> None:
    files = files_of(link=errno.EPERM)

    def loses_its_reply(source: Path, target: Path) -> None:
        rename_noreplace(source, target)
        raise FileExistsError(errno.EEXIST, "exists")

    files.rename_exclusive = loses_its_reply  # type: ignore[method-assign]
    assert write_exclusive(files, tmp_path / "a", b"1", "w")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_that_is_taken_is_no_missing_feature(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    for files in (Files(), files_of(link=errno.EPERM), files_of(link=errno.EPERM, rename=errno.EINVAL)):
        files.single_writer = True
        with pytest.raises(FileExistsError):
            publish(files, tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_files_that_cannot_be_synced_are_noted_once(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: refuse(code))
    monkeypatch.setattr(disk, "_noted", set())
    with caplog.at_level(logging.INFO, "stores"):
        for name in "ab":
            assert write_exclusive(Files(), tmp_path / name, b"1", "w")
    assert caplog.text.count("cannot sync files") == 1 == caplog.text.count("cannot sync folders")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_names_its_file(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("pwritev", "fsync"):
        with monkeypatch.context() as failing:
            failing.setattr(os, call, lambda *_: refuse(code))
            with pytest.raises(OSError, match=f"{os.strerror(code)}.*{tmp_path}/a") as raised:
                replace_file(Files(), tmp_path / "a", b"1", "w")
            assert raised.value.errno == code
    assert not list(tmp_path.iterdir())
