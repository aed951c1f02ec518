"""Edited, monstrous and odd files at every door: a foreseen error that names the file, at once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extract.backbones.weights import WeightsUnavailable, require_source
from extract.datasets.own.description_file import read_description
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_index import HostileTarError
from extract.sources.tar_samples import find_tars
from pipelines.__main__ import main
from pipelines.errors import UsageError
from pipelines.runs.run_folder import read_run

GOLDEN = Path(__file__).parents[2] / "golden" / "run-linear" / "run"
MONSTER_BYTES = 8_000_000_000  # of holes


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "config.yaml"):
        shutil.copy(GOLDEN / name, folder / name)
    return folder


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "run.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def put(*keys: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


def test_the_record_of_a_run_is_read(run_folder: Path) -> None:
    assert read_run(run_folder).head == "linear"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("pyramid", 0, "channels", value=10**7), "channels is '10000000', expected at most 65536"),
        (put("pyramid", 0, "channels", value="many"), "TypeError"),
        (put("pyramid", 0, "name", value="../p4"), "level name"),
        (put("pyramid", value=[]), "1 to 64 levels"),
        (put("pyramid", value={}), "1 to 64 levels"),
        (put("head_settings", value={"width": 10**9}), "numbers up to 1048576"),
        (put("head_settings", value=[1]), "expected settings"),
        (put("head", value=3), "head is '3'"),
        (put("identity", value=[]), "TypeError"),
        (put("identity", "dataset", value=None), "identity is 'None'"),
        (put("identity", "dataset", "num_classes", value=10**9), "num_classes is '1000000000'"),
        (put("identity", "dataset", "class_names", value="abc"), "class_names"),
        (put("identity", "backbone", "model", value=["a"]), "model is"),
        (put("stores", value=3), "TypeError"),
        (put("stores", value=[{"path": "a"}]), "TypeError"),
        (put("surprise", value=1), "surprise"),
        (lambda record: record.pop("head"), "head"),
    ],
)
def test_a_malformed_record_is_a_foreseen_error(
    run_folder: Path, change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    edited(run_folder, change)
    with pytest.raises(UsageError, match=r"run.json is not the record of a run: ") as raised:
        read_run(run_folder)
    assert expected in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 9999, "\xff", '{"head": NaN}'])
def test_what_is_no_record_is_a_foreseen_error(run_folder: Path, text: str) -> None:
    (run_folder / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"run.json is not the record of a run"):
        read_run(run_folder)


def monster(path: Path) -> None:
    path.touch()
    os.truncate(path, MONSTER_BYTES)


def alias_bomb(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("make", "expected"),
    [(monster, "8000000000 bytes"), (os.mkfifo, "not a regular file"), (alias_bomb, "more than 1000000")],
)
def test_config_files_are_bounded(
    tmp_path: Path, make: Callable[[Path], None], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "my.yaml")
    assert main(["status", "--config", str(tmp_path / "my.yaml")]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
@pytest.mark.parametrize("make", [monster, os.mkfifo])
def test_files_of_a_run_are_bounded(
    run_folder: Path, name: str, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / name).unlink()
    make(run_folder / name)
    assert main(["report", str(run_folder)]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("make", [monster, os.mkfifo, alias_bomb])
def test_descriptions_are_bounded(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "my.yaml")
    with pytest.raises(DatasetLayoutError, match="cannot be read as a description"):
        read_description(tmp_path / "my.yaml")


def test_weights_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(WeightsUnavailable, match="found a pipe or a device"):
        require_source(None, str(tmp_path / "weights.pth"))  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["{0..999999999}.tar", "{1..2000}{1..2000}.tar", "{a,b}" * 40 + ".tar"])
def test_brace_patterns_are_counted_before_they_are_expanded(pattern: str) -> None:
    with pytest.raises(HostileTarError, match="at most 1000000 are read"):
        find_tars(pattern, "training")
    with pytest.raises(FileNotFoundError, match="20 of the 20 tars"):
        find_tars("/nowhere/{000..009}-{a,b}.tar", "training")
