"""Training from a store that is still being extracted, and several heads shared among devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from pipelines.runs.run_folder import read_run
from tests.pipelines.extracted import write_coloured_data

WORDS = "--head linear --device cpu --threads 1 --batch-size 4 --log-every 0 --json"
TRAIN = ["train-head", *WORDS.split()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured_data(tmp_path_factory.mktemp("data"))


def summary_of(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, dict[str, Any], str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.out + captured.err


def extract_words(data: Path, stores: Path) -> list[str]:
    words = (
        "extract --dataset ade20k --model swinv2-nano --weights random:0 --crop-size 64 --device cpu --json"
    )
    return [
        *words.split(),
        "--data",
        str(data),
        "--stores",
        str(stores),
        "--shard-rows",
        "2",
        "--workers",
        "1",
    ]


def test_a_run_keeps_to_what_was_finished_when_it_began(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract = extract_words(data, tmp_path / "features")
    code, made, _ = summary_of(capsys, [*extract, "--max-shards", "4"])
    assert code == 0 and made["shards_left"] == 2
    train = [*TRAIN, "--stores", str(tmp_path / "features"), "--run", "run"]
    code, refused, _ = summary_of(capsys, [*train, "--max-steps", "2"])
    assert code == 2 and "--allow-partial" in refused["error"]
    code, _, out = summary_of(capsys, [*train, "--max-steps", "2", "--allow-partial"])
    assert code == 0, out
    assert "is still being extracted: 8 of 12 rows, 4 of 6 shards are used" in out
    (store,) = read_run(Path("run")).stores
    assert (store.rows, store.rows_planned) == (8, 12)
    assert Path(store.path).name == f"{Path(made['store']).name}-4-of-6"
    assert summary_of(capsys, extract)[1]["shards_left"] == 0
    code, _, out = summary_of(capsys, [*TRAIN, "--run", "run", "--resume", "--max-steps", "4"])
    assert code == 0, out
    assert read_run(Path("run")).stores == (store,), "a resumed run keeps its rows"
    code, _, out = summary_of(capsys, [*train[:-1], "whole", "--max-steps", "2", "--allow-partial"])
    assert code == 0 and "still being extracted" not in out
    assert read_run(Path("whole")).stores[0].rows == 12


@pytest.mark.ci
def test_heads_are_shared_among_devices(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is the one that all heads side by side give."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert summary_of(capsys, extract_words(data, tmp_path / "features"))[0] == 0
    words = [*TRAIN, "--stores", str(tmp_path / "features"), "--lr", "1e-3,2e-3,4e-3", "--max-steps", "3"]
    code, beside, out = summary_of(capsys, [*words, "--run", "beside"])
    assert code == 0, out
    at = words.index("--device")
    shared = [*words[:at], *words[at + 2 :], "--devices", "cpu:2", "--run", "shared"]
    code, summary, out = summary_of(capsys, shared)
    assert code == 0, out
    assert summary["processes"] == 2 and summary["heads"].keys() == beside["heads"].keys()
    places = {name: Path(each["run"]) for name, each in summary["heads"].items()}
    assert sorted(path.parent.name for path in places.values()) == ["device0", "device0", "device1"]
    for name, each in beside["heads"].items():
        assert summary["heads"][name]["loss"] == each["loss"], name
    assert "next: python -m pipelines report --run shared" in out
    folders = sorted(str(path) for path in Path("shared").glob("device*"))
    assert folders == ["shared/device0", "shared/device1"]
    assert main(["report", *folders]) == 0
    assert main(["report", "--run", "shared"]) == 0
    capsys.readouterr()
    code, again, _ = summary_of(capsys, shared)
    assert code == 2 and "already holds runs" in again["error"]
    code, alone, _ = summary_of(capsys, [*TRAIN[:3], "--devices", "cpu:2", "--json"])
    assert code == 2 and "with one head" in alone["error"]
