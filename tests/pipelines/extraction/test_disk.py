"""`plan` and `extract` on disks that are full, not writable, or hold damaged stores."""

import errno
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import pipelines.engines.one_process
import pipelines.forecast.planned_extraction
import pipelines.forecast.speed_probe
import pipelines.verbs.plan_store
from pipelines.__main__ import main
from tests.pipelines.extraction.verb import TRAINING, result
from tests.unfinished import forget


@pytest.mark.parametrize("is_missing", [False, True])
def test_a_damaged_store_is_repaired_as_advised(
    words: list[str], is_missing: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(result(capsys, "extract", *words, "--shard-rows", "2")[1]["store"])
    before = {file: file.read_bytes() for file in (store / "bins").rglob("c.*")}
    damaged = next((store / "bins").rglob("p4/q/c.1.0.0.0"))
    if is_missing:
        damaged.unlink()
        code, _, _, err = result(capsys, "extract", *words, "--shard-rows", "2")
    else:
        damaged.write_bytes(bytes(len(before[damaged])))
        code, _, _, err = result(capsys, "verify", "--store", str(store), "--full")
    assert code == 4
    advice = re.search(r"to repair it: python -m pipelines (verify .* --repair)", err)
    assert advice is not None
    assert main(shlex.split(advice[1])) == 4
    assert main([*shlex.split(advice[1]), "--yes"]) == 0
    code, mended, _, _ = result(capsys, "extract", *words, "--shard-rows", "2")
    assert (code, mended["rows_written"], mended["shards_written"]) == (0, 2, 1)
    assert {file: file.read_bytes() for file in (store / "bins").rglob("c.*")} == before
    assert main(["verify", "--store", str(store), "--full"]) == 0


def test_too_little_space_is_seen_before_the_backbone_is_loaded(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the backbone was loaded")

    monkeypatch.setattr(pipelines.forecast.planned_extraction, "free_bytes", lambda _: 1000)
    monkeypatch.setattr(pipelines.engines.one_process, "load_backbone", never)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 5
    assert "1000" in err
    assert not (tmp_path / "features").exists()


def test_only_a_store_of_the_same_identity_passes_for_a_begun_one(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, _, _ = result(capsys, "extract", *words, "--shard-rows", "2")
    store = Path(first["store"])
    monkeypatch.setattr(pipelines.forecast.planned_extraction, "free_bytes", lambda _: 1000)
    with monkeypatch.context() as loading:
        loading.setattr(
            pipelines.engines.one_process, "load_backbone", lambda *_, **__: pytest.fail("loaded")
        )
        for other in ("--views 2", "--seed 1", "--subset 50%", "--pixels stored", "--levels p5"):
            code, _, _, err = result(capsys, "extract", *words, *other.split())
            assert code == 5, other
            assert f"{store.parent}: the plan needs" in err
    code, _, out, _ = result(capsys, "extract", *words)
    assert code == 0 and "nothing to do" in out
    forget(store, "64x64-1")
    monkeypatch.setattr(pipelines.forecast.planned_extraction, "free_bytes", lambda _: first["bytes"] // 2)
    code, rest, _, _ = result(capsys, "extract", *words)
    assert (code, rest["shards_written"]) == (0, 1), "a third of it is missing"


def test_a_full_disk_names_bytes_and_how_to_continue(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipelines.engines.one_process, "extract", fail)
    monkeypatch.setattr(pipelines.engines.one_process, "free_bytes", lambda _: 7)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 5
    assert re.search(r"features/\S+: the plan needs [1-9]\d+ bytes and 7 bytes are free", err)
    assert f"to continue: python -m pipelines extract {shlex.join(words)}" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_plan_of_a_disk_that_cannot_be_tried_still_plans(
    number: int,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pipelines.forecast.speed_probe, "measure_disk", fail)
    monkeypatch.setattr(pipelines.forecast.speed_probe, "MEASURED_S", 0.05)
    monkeypatch.setenv("PERMAFROST_CACHE", str(tmp_path / "cache"))
    code, summary, out, _ = result(capsys, "plan", *words)
    assert code == 0
    assert summary["rows"] == TRAINING
    assert f"cannot be\n            written ({os.strerror(number)})" in out


def test_a_folder_that_cannot_be_written_is_seen_first(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for verb in ("plan", "extract"):
        for stores in ("file", "file/below"):
            code, summary, _, _ = result(capsys, verb, *words, "--stores", str(tmp_path / stores))
            assert code == 2
            assert "file is a file, expected a folder" in summary["error"]
    monkeypatch.setattr(
        pipelines.forecast.planned_extraction.os, "access", lambda *_: False
    )  # root may write anywhere
    monkeypatch.setattr(
        pipelines.engines.one_process, "load_backbone", lambda *_, **__: pytest.fail("loaded")
    )
    code, summary, _, _ = result(capsys, "extract", *words)
    assert code == 2
    assert "cannot be written" in summary["error"]


def test_a_complete_store_in_a_read_only_folder_has_nothing_to_do(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(result(capsys, "extract", *words)[1]["store"])
    (store.parent / "weights.json").unlink()
    make_read_only(store.parent, monkeypatch)
    code, summary, out, _ = result(capsys, "extract", *words)
    assert (code, summary["done_before"], summary["store"]) == (0, True, str(store))
    assert f"{store} is complete: nothing to do" in out
    assert [file.name for file in store.parent.iterdir()] == [store.name]
    monkeypatch.setattr(
        pipelines.engines.one_process, "load_backbone", lambda *_, **__: pytest.fail("loaded")
    )
    code, summary, _, _ = result(capsys, "extract", *words, "--seed", "1")
    assert code == 2
    assert "cannot be written" in summary["error"]


def test_another_store_does_not_fit_in_a_read_only_folder(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other weights, which are known once they are loaded only."""
    store = Path(result(capsys, "extract", *words)[1]["store"])
    make_read_only(store.parent, monkeypatch)
    at = words.index("--weights")
    code, summary, _, _ = result(capsys, "extract", *words[: at + 1], "random:1", *words[at + 2 :])
    assert code == 2
    assert f"{store.parent} cannot be written" in summary["error"]


def make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change below `folder` fails, and is known to fail, as on a disk mounted read-only; root may
    write where permissions forbid it."""

    def refuse_below(name: str) -> None:
        original = getattr(os, name)

        def refusing(path: object, *arguments: object, **more: object) -> object:
            changes = name != "open" or int(str(arguments[0])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if isinstance(path, str | Path) and folder in (Path(path), *Path(path).parents) and changes:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, *arguments, **more)

        monkeypatch.setattr(os, name, refusing)

    for name in ("open", "mkdir", "rename", "link", "unlink", "replace"):
        refuse_below(name)
    plain_open, access = io.open, os.access

    def opened(file: object, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        below = isinstance(file, str | Path) and folder in Path(file).parents
        if below and set(mode) & set("wax+"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))
        return plain_open(file, mode, *arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(
        os, "access", lambda at, mode: access(at, mode) and folder not in (Path(at), *Path(at).parents)
    )


def test_a_damaged_plan_is_an_integrity_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, summary, _, _ = result(capsys, "extract", *words)
    plan = Path(summary["store"]) / "plan.json"
    plan.write_bytes(plan.read_bytes()[:-20])
    for verb in ("verify", "status", "info"):
        assert result(capsys, verb, "--store", summary["store"])[0] == 4
    assert result(capsys, "extract", *words)[0] == 4


def test_the_rest_of_a_store_must_fit(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--shard-rows", "2"]
    _, summary, _, _ = result(capsys, "extract", *words)
    store = Path(summary["store"])
    forget(store, "64x64-0")
    monkeypatch.setattr(
        pipelines.forecast.planned_extraction, "free_bytes", lambda _: summary["bytes"] // 3 - 10
    )
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 5
    assert str(summary["bytes"] // 3) in err
    monkeypatch.setattr(
        pipelines.forecast.planned_extraction, "free_bytes", lambda _: summary["bytes"] // 3 + 1000
    )
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 0, err
