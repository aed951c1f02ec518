"""Disks without hard links, seen before the backbone is loaded; disks that fail, named with a remedy."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import pipelines.engines.one_process
from pipelines.disk_errors import remedy
from pipelines.verbs.doctor import check_exclusive
from stores import verify_store
from stores.shards.disk import Files
from tests.faults.disks_without_links import refuse
from tests.pipelines.extraction.verb import TRAINING, result


@pytest.fixture(params=[errno.EPERM, errno.EINVAL], ids=errno.errorcode.get)
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "link", lambda *_, **__: refuse(request.param))
    return


def without_exclusive_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Files, "rename_exclusive", lambda *_: refuse(errno.EINVAL))


def test_extract_without_hard_links(
    no_links: None, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, _, _ = result(capsys, "extract", *words)
    assert (code, summary["rows_written"]) == (0, TRAINING)
    assert verify_store(summary["store"], full=True).ok


def test_extract_without_any_exclusive_step(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", lambda *_, **__: refuse(errno.EPERM))
    without_exclusive_rename(monkeypatch)
    with monkeypatch.context() as loading:
        loading.setattr(
            pipelines.engines.one_process, "load_backbone", lambda *_, **__: pytest.fail("loaded")
        )
        code, summary, _, _ = result(capsys, "extract", *words)
    assert code == 2
    assert str(tmp_path) in summary["error"] and "--single-writer" in summary["error"]
    assert not (tmp_path / "features").exists()
    code, summary, _, _ = result(capsys, "extract", *words, "--single-writer")
    assert (code, summary["rows_written"]) == (0, TRAINING)
    assert verify_store(summary["store"], full=True).ok


def test_doctor_names_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = tmp_path / "features"
    assert str(check_exclusive(stores)) == "ok  writers: hard links keep several writers apart"
    monkeypatch.setattr(os, "link", lambda *_, **__: refuse(errno.EPERM))
    assert "ok  writers: no hard links; renames that do not replace" in str(check_exclusive(stores))
    without_exclusive_rename(monkeypatch)
    found = str(check_exclusive(stores))
    assert found.startswith("BAD writers: neither hard links nor") and "--single-writer to extract" in found
    assert not list(tmp_path.iterdir())


def fail_in_shards(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Writing features fails, and nothing else."""
    write = os.pwritev

    def failing(fd: int, *rest: object) -> int:
        if "/levels/p4/q/c." in os.readlink(f"/proc/self/fd/{fd}"):
            refuse(code)
        return write(fd, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwritev", failing)


@pytest.mark.parametrize(
    ("code", "advice", "exit_code"),
    [
        (errno.EIO, "look at its state", 1),
        (errno.EACCES, "change the owner, group or mode", 2),
        (errno.EINVAL, "choose a folder on another disk", 1),
        (errno.ENOSPC, "bytes .* are free", 5),
    ],
)
def test_an_error_of_the_disk_names_file_and_remedy(
    code: int,
    advice: str,
    exit_code: int,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_in_shards(monkeypatch, code)
    found, _, _, err = result(capsys, "extract", *words)
    assert found == exit_code
    last = err.splitlines()[-1]
    assert os.strerror(code) in last or code == errno.ENOSPC
    assert str(words[words.index("--stores") + 1]) in last
    assert re.search(advice, last), last
    monkeypatch.undo()
    assert result(capsys, "extract", *words)[0] == 0


def test_a_disk_without_inodes_is_named_as_such(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named apart, since freeing bytes would not help."""
    counts = os.statvfs("/")
    names = [name for name in dir(counts) if name.startswith("f_")]
    full = SimpleNamespace(**{name: getattr(counts, name) for name in names})
    full.f_files, full.f_favail = 1000, 0
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert "no inodes" in remedy(OSError(errno.ENOSPC, "No space left on device", "/tmp/a"))
    fail_in_shards(monkeypatch, errno.ENOSPC)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 5
    assert "no inodes" in err.splitlines()[-1]


@pytest.mark.parametrize("name", ["plan.json", "MANIFEST.json"])
def test_begin_and_end_retry_errors_that_pass(
    name: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the rows between them do."""
    monkeypatch.setattr("extract.sources.byte_sources._PAUSES_S", (0.0, 0.0, 0.0))
    link, failed = os.link, []

    def failing_once(source: Path, target: Path) -> None:
        if Path(target).name == name and not failed:
            failed.append(target)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        link(source, target)

    monkeypatch.setattr(os, "link", failing_once)
    code, summary, _, _ = result(capsys, "extract", *words)
    assert (code, summary["rows_written"], len(failed)) == (0, TRAINING, 1)
    assert "Input/output error; retrying" in caplog.text
    assert verify_store(summary["store"], full=True).ok
