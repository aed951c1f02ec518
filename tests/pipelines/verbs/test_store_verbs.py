"""The verbs that look at stores: status, info, verify, gc; and finding the one that fits."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.__main__ import main
from pipelines.catalog.stores import TEST, TRAINING, StoreQuery, find_store, list_stores
from pipelines.cli.help_text import WORDS
from pipelines.errors import UsageError
from tests.pipelines.made_stores import make_store


def result(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and stderr of a verb."""
    code = main([*words, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "features", skipped=frozenset({("training-3", 1)}))


def test_status_of_a_complete_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _ = result(capsys, "status", "--store", str(store))
    (state,) = summary["stores"]
    assert code == 0
    assert state["complete"]
    assert (state["rows"], state["written"]) == (24, 23)
    assert state["skipped"] == [
        {"key": "training-3", "view": 1, "outcome": "undecodable", "reason": "not an image"}
    ]
    assert main(["status", "--stores", str(store.parent)]) == 0
    assert "training-3 view 1: undecodable: not an image" in capsys.readouterr().out


def test_status_lists_a_record_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skipped = {("training-3", 0), ("training-3", 1)}
    store = make_store(tmp_path / "features", skipped=frozenset(skipped))
    assert main(["status", "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert "training-3 (2 views): undecodable: not an image" in out and out.count("training-3") == 1


def test_status_of_an_unfinished_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "MANIFEST.json").unlink()
    next((store / "receipts").glob("*-0.json")).unlink()
    code, summary, _ = result(capsys, "status", "--store", str(store))
    assert code == 0
    assert not summary["stores"][0]["complete"]
    assert len(summary["stores"][0]["missing_shards"]) == 1


def test_info(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _ = result(capsys, "info", "--stores", str(store.parent))
    (described,) = summary["stores"]
    assert code == 0
    assert described["store"] == str(store)
    assert described["identity"]["dataset"]["name"] == "ade20k"
    assert store.name.endswith(described["identity_digest"][:8])
    assert list(described["levels"]) == ["p2", "p3", "p4", "p5"]
    assert described["levels"]["p5"]["bytes"] == 24 * 2 * 2 * 32 * 2
    assert main(["info", "--store", str(store)]) == 0
    out = capsys.readouterr().out
    assert "backbone.model: made" in out
    assert all(f"  {word:<10}{text}" in out for word, text in WORDS.items())


@pytest.mark.parametrize("verb", ["info", "status"])
def test_rate_and_error_of_every_level(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the receipts: rates of what is stored, the median and the worst error over shards."""
    path = make_store(tmp_path, codec_name="int8", levels=("p4", "p5"), errors=True)
    code, summary, _ = result(capsys, verb, "--store", str(path))
    assert code == 0
    receipts = [json.loads(file.read_bytes()) for file in (path / "receipts").iterdir()]
    for level, cells in (("p4", 16), ("p5", 4)):
        found, errors = summary["stores"][0]["levels"][level], [r["errors"][level] for r in receipts]
        rate = 8 + 32 / cells  # a scale a row and channel
        assert found["bits_per_value"] == rate and {e["bits_per_value"] for e in errors} == {rate}
        assert found["worst"] == max(e["worst"] for e in errors) > 0
        assert found["median"] == pytest.approx(np.median([e["median"] for e in errors]))
        assert found["shards"] == len(receipts) == 6
    assert main([verb, "--store", str(path)]) == 0
    assert "codec     int8 p4: 10.00 bits a value; error 0." in capsys.readouterr().out


def test_verify_finds_damage_only_full_reads_see(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _ = result(capsys, "verify", "--store", str(store), "--full")
    assert (code, summary["ok"]) == (0, True)
    shard = next((store / "bins").rglob("p4/q/c/1/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    assert result(capsys, "verify", "--store", str(store))[0] == 0
    code, summary, err = result(capsys, "verify", "--store", str(store), "--full")
    assert code == 4
    (problem,) = summary["stores"][0]["problems"]
    assert problem["shard"] == "64x64-1"
    assert problem["rows"] == [4, 5, 6, 7]
    assert str(store) in err and "*" not in err
    assert f"to repair it: python -m pipelines verify --store {store} --full --repair" in err


def test_repair_lists_removes_and_leaves_the_rest(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((store / "bins").rglob("p4/q/c/1/0/0/0")).unlink()
    (store / "receipts/64x64-1.1.json").write_text("{}")  # an earlier writer's, superseded
    before = {file.name for file in (store / "receipts").iterdir()}
    words = ["verify", "--store", str(store), "--repair"]
    assert main(words) == 4
    out, err = capsys.readouterr()
    files = ["receipts/64x64-1.1.json", "receipts/64x64-1.json", "MANIFEST.json"]
    assert [line.strip() for line in out.splitlines() if "to remove" in line] == [
        f"to remove: {store / file}" for file in files
    ]
    assert "to remove the 3 files listed, repeat it with --yes" in err
    assert {file.name for file in (store / "receipts").iterdir()} == before
    code, summary, _ = result(capsys, *words, "--yes")
    assert code == 0
    assert not summary["ok"]
    assert summary["stores"][0]["repair"] == {
        "shards": ["64x64-1"],
        "files": files,
        "removed": True,
        "repaired": True,
    }
    assert {file.name for file in (store / "receipts").iterdir()} == before - {
        "64x64-1.json",
        "64x64-1.1.json",
    }
    code, summary, _ = result(capsys, "status", "--store", str(store))
    (state,) = summary["stores"]
    assert (code, state["complete"], state["missing_shards"]) == (0, False, ["64x64-1"])
    code, summary, err = result(capsys, *words, "--yes")
    assert code == 4 and "run extract again" in err
    make_store(store.parent, skipped=frozenset({("training-3", 1)}))
    assert result(capsys, "verify", "--store", str(store), "--full")[0] == 0
    assert result(capsys, *words, "--yes")[0] == 0


def test_yes_confirms_a_repair_only(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = result(capsys, "verify", "--store", str(store), "--yes")
    assert code == 2 and "--yes confirms the removals of --repair" in err


def test_a_store_beside_others_is_repaired_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, damaged = make_store(tmp_path, records=4), make_store(tmp_path, split="validation", records=4)
    next((damaged / "bins").rglob("p4/q/c/0/0/0/0")).unlink()
    code, summary, _ = result(capsys, "verify", "--stores", str(tmp_path), "--repair", "--yes")
    assert (code, [store["ok"] for store in summary["stores"]]) == (0, [True, False])
    assert (sound / "MANIFEST.json").exists() and not (damaged / "MANIFEST.json").exists()


@pytest.mark.parametrize(
    "verb", ["status", "info", "verify", "verify --repair --yes", "train-head --head linear"]
)
def test_a_complete_store_without_its_plan_is_damaged(
    verb: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "plan.json").unlink()
    code, summary, err = result(capsys, *verb.split(), "--store", str(store))
    assert code == 4
    assert str(store) in err and "plan.json is missing" in err
    assert summary["error"].endswith("move the store away and extract again")
    if "train" not in verb:
        assert result(capsys, *verb.split(), "--stores", str(store.parent))[0] == 4
    assert (store / "MANIFEST.json").exists()


def test_verify_of_an_unfinished_store_and_of_another_manifest(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, _ = result(capsys, "verify", "--store", str(store), "--manifest-digest", "0" * 64)
    assert code == 4
    assert "0" * 64 in summary["error"]
    digest = hashlib.sha256((store / "MANIFEST.json").read_bytes()).hexdigest()
    assert result(capsys, "verify", "--store", str(store), "--manifest-digest", digest.upper())[0] == 0
    code, _, err = result(capsys, "verify", "--store", str(store), "--manifest-digest", "abc")
    assert code == 2 and "abc: expected 64 hexadecimal digits" in err
    (store / "MANIFEST.json").unlink()
    code, summary, _ = result(capsys, "verify", "--store", str(store))
    assert code == 4
    assert "MANIFEST.json" in summary["error"] and summary["error"].count(str(store)) == 1
    assert summary["error"].endswith("; run extract again")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("MANIFEST.json", "delete it and run the extraction again, which checks shards by their receipts"),
        ("plan.json", "move the store away and extract again"),
    ],
)
def test_verify_gives_one_advice(
    store: Path, name: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / name).write_bytes((store / name).read_bytes() + b" ")
    code, summary, _ = result(capsys, "verify", "--store", str(store))
    assert code == 4
    (problem,) = summary["stores"][0]["problems"]
    assert problem["what"].endswith(advice) and summary["error"].count(" again") == 1


@pytest.mark.parametrize("verb", ["status", "info", "verify", "gc"])
def test_no_store_is_a_usage_error_that_lists_the_stores(
    verb: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = result(capsys, verb, "--store", str(store.parent / "none"), "--stores", str(store.parent))
    assert code == 2
    assert str(store) in err
    code, _, err = result(capsys, verb, "--stores", str(store / "none"))
    assert code == 2
    assert "holds no store" in err


@pytest.mark.parametrize("verb", ["status", "info", "verify", "gc", "train-head --head linear"])
def test_a_folder_of_stores_is_refused_with_advice(
    verb: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, words = store.parent, [*verb.split(), "--store", str(store.parent)]
    assert main(words) == 2
    advice = f"{folder} is a folder of stores: pass --stores {folder}, or --store with one of:\n  {store}\n"
    assert advice in capsys.readouterr().err
    for number in range(6):
        (folder / f"x{number}").mkdir()
        (folder / f"x{number}" / "plan.json").touch()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "x3" in err and "x4" not in err and "and 2 more" in err


@pytest.mark.parametrize("verb", ["status", "info", "gc"])
def test_a_damaged_store_does_not_hide_the_others(
    verb: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = store.parent / "aaa"
    broken.mkdir()
    (broken / "plan.json").write_text("{")
    assert main([verb, "--stores", str(store.parent)]) == 4
    out, err = capsys.readouterr()
    assert f"{broken}: DAMAGED: {broken / 'plan.json'} is not readable JSON" in out and str(broken) in err
    assert (str(store) in out) == (verb != "gc") and ("no orphaned files" in out) == (verb == "gc")
    code, summary, _ = result(capsys, verb, "--stores", str(store.parent))
    assert (code, list(summary["damaged"])) == (4, [str(broken)])


def test_gc_lists_and_then_deletes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = store / "bins" / f"q.{'a' * 32}.partial"
    orphan.write_bytes(b"12345")
    code, summary, _ = result(capsys, "gc", "--store", str(store))
    assert (code, summary["deleted"], summary["bytes"]) == (0, False, 5)
    assert orphan.exists()
    code, summary, _ = result(capsys, "gc", "--store", str(store), "--delete")
    assert (code, summary["orphans"]) == (0, [{"path": str(orphan), "bytes": 5}])
    assert not orphan.exists()
    assert main(["verify", "--store", str(store), "--full"]) == 0
    assert main(["gc", "--stores", str(store.parent)]) == 0
    assert "no orphaned files" in capsys.readouterr().out


def test_the_one_store_that_fits(tmp_path: Path) -> None:
    training = make_store(tmp_path, records=4)
    test = make_store(tmp_path, split="validation", records=4)
    assert [store.path for store in list_stores(tmp_path)] == sorted([training, test])
    assert find_store(tmp_path, StoreQuery(purpose=TRAINING)).path == training
    assert find_store(tmp_path, StoreQuery(purpose=TEST, model="made", levels=("p4",))).path == test
    with pytest.raises(UsageError, match="make extract DATASET=ade20k MODEL=swinv2-b SPLIT=<test split>"):
        find_store(tmp_path, StoreQuery(purpose=TEST, dataset="ade20k", model="swinv2-b"))
    with pytest.raises(UsageError, match="LEVELS=p4,p6"):
        find_store(tmp_path, StoreQuery(purpose=TRAINING, levels=("p4", "p6")))
    other = make_store(tmp_path, records=4, codec_name="int8")
    with pytest.raises(UsageError, match="2 complete stores match") as caught:
        find_store(tmp_path, StoreQuery(purpose=TRAINING))
    assert str(other) in str(caught.value)
    (other / "MANIFEST.json").unlink()
    assert find_store(tmp_path, StoreQuery(purpose=TRAINING)).path == training
    (training / "MANIFEST.json").unlink()
    with pytest.raises(UsageError, match="unfinished"):
        find_store(tmp_path, StoreQuery(purpose=TRAINING))


def test_other_folders_are_ignored(tmp_path: Path) -> None:
    store = make_store(tmp_path, records=4)
    for name, content in (("other", b"{}"), ("damaged", b"not json"), ("edited", b'{ "identity": 3 }')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_bytes(content)
    (tmp_path / "file").write_text("")
    assert [found.path for found in list_stores(tmp_path)] == [store]
