"""`plan`'s measurement of this machine, its cache, and whether caching pays."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pipelines.forecast.speed_probe
from extract.backbones.loading import backbone_card
from pipelines.__main__ import main
from pipelines.config import TrainConfig
from pipelines.forecast import caching_advice, head_probe
from pipelines.forecast.measurement_cache import FIGURES_REVISION, FILE_NAME, SpeedCache
from tests.extract.datasets.made_ade20k import write_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), training=16, validation=4)


@pytest.fixture(autouse=True)
def nothing_measured_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERMAFROST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(data: Path, tmp_path: Path) -> list[str]:
    return shlex.split(
        f"--dataset ade20k --data {data} --model swinv2-nano --weights random:0 --crop-size 64"
        f" --stores {tmp_path / 'features'} --device cpu --workers 2 --views 2"
    )


def plan(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[dict[str, Any], str]:
    assert main(["plan", *words, "--details", "--json"]) == 0
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


def test_plan_measures_once_and_writes_nothing_else(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, out = plan(capsys, [*words, "--head", "linear"])
    for stage in ("decode", "backbone", "disk", "head linear"):
        assert f"measuring this machine: {stage}" in caplog.messages, "a minute of silence looks like a hang"
    caplog.clear()
    for stage in ("decode_seconds", "forward_seconds", "write_seconds", "start_seconds", "read_bytes_per_s"):
        assert first[stage] > 0
    rows = first["rows"] * (first["decode_seconds"] + first["forward_seconds"])
    assert first["estimated_seconds"] >= rows + first["start_seconds"] - 1e-9
    assert 0 <= first["others_share"] <= 1 and first["write_processor_s_per_gb"] > 0
    assert "before the first row" in out and "B/s with fsync" in out
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    monkeypatch.setattr(
        "extract.extractor.stage_times.untrained_weights",
        lambda *_: pytest.fail("the backbone was measured again"),
    )
    second, _ = plan(capsys, [*words, "--head", "linear"])
    free = {name: second[name] for name in ("free_bytes", "free_inodes")}
    assert second == {**first, **free}
    assert "measuring" not in caplog.text
    with pytest.raises(pytest.fail.Exception):
        main(["plan", *words, "--remeasure"])


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_the_program_s_own_start_counts_where_it_is_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipelines.forecast.speed_probe.program_seconds() == 0.0, (
        "the tests' program has done other things since"
    )
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="pipelines.__main__"))
    found = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, check=True)
    assert pipelines.forecast.speed_probe.program_seconds() == pytest.approx(float(found.stdout), abs=2.0)


def test_plan_says_for_each_head_whether_caching_pays(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching_advice, "head_step_seconds", lambda *_: 0.01)
    summary, out = plan(capsys, [*words, "--head", "linear,bifpn1"])
    caching = summary["caching"]
    linear, bifpn = caching["heads"]
    assert (linear["head"], bifpn["head"]) == ("linear", "bifpn1")
    assert linear["head_seconds"] > 0
    assert linear["online_seconds"] > linear["cached_seconds"] and linear["break_even_runs"] == 1
    assert "caching   linear: pays from run 1 on" in out
    visits = linear["steps"] * linear["batch_size"] / summary["rows"]
    assert linear["visits_per_view"] == pytest.approx(visits) and "--views" in out
    by_choice = {(v["codec"], tuple(v["levels"])): v for v in caching["variants"]}
    float16, deep = by_choice["float16", ("p2", "p3", "p4", "p5")], by_choice["int8", ("p4", "p5")]
    assert deep["bytes"] < summary["bytes"] < float16["bytes"]
    assert deep["heads"]["bifpn1"] is None and "bifpn1 needs more levels" in out


def test_a_head_that_lacks_levels_is_reported_beside_the_measured_ones(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching_advice, "head_step_seconds", lambda *_: 0.01)
    summary, out = plan(capsys, [*words, "--head", "bifpn1", "--levels", "p4,p5"])
    problem = "head bifpn1 needs level p2, p3; available: p4, p5"
    assert summary["caching"]["problems"] == {"bifpn1": problem}
    assert f"caching   bifpn1: {problem}" in out and summary["estimated_seconds"] > 0


@pytest.mark.parametrize("wrong", ["--head linear,fop", "--recipe fop"])
def test_unknown_names_are_refused_before_anything_is_measured(
    wrong: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.verbs.plan_store.measure_speed", lambda *_: pytest.fail("it was measured"))
    assert main(["plan", *words, *wrong.split()]) == 2
    captured = capsys.readouterr()
    assert f"{wrong[2:].split()[0]} 'fop'" in captured.err and captured.out == ""


@pytest.mark.ci
def test_plan_compares_full_and_deep_stores_with_none(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching_advice, "head_step_seconds", lambda *_: 0.01)
    summary, out = plan(capsys, [*words, "--head", "linear,bifpn1"])
    ways = {way["name"]: way for way in summary["ways"]}
    full, stored = ways["full store"], ways["deep store with stored pixels"]
    source, online = ways["deep store with source images"], ways["online"]
    assert full["bytes"] == summary["bytes"] > stored["bytes"] > source["bytes"] > online["bytes"] == 0
    for head in ("linear", "bifpn1"):
        forecast = next(each for each in summary["caching"]["heads"] if each["head"] == head)
        assert full["heads"][head] == pytest.approx(forecast["cached_seconds"], rel=0.2)
        assert online["heads"][head] == forecast["online_seconds"]
        assert full["heads"][head] < stored["heads"][head] and full["heads"][head] < source["heads"][head]
    recomputed = stored["heads"]["linear"] - full["heads"]["linear"]
    linear = next(each for each in summary["caching"]["heads"] if each["head"] == "linear")
    assert recomputed < 2 * linear["batch_size"] * summary["forward_seconds"], "a part of the backbone"
    totals = [way["total_seconds"] for way in summary["ways"]]
    assert totals == sorted(totals) and all(way["fits"] for way in summary["ways"])
    assert f"advice    {summary['ways'][0]['name']}" in out
    steps = {each["head"]: each["steps"] for each in summary["caching"]["heads"]}
    training = sum(steps[head] * seconds for head, seconds in stored["heads"].items())
    assert stored["total_seconds"] == pytest.approx(summary["estimated_seconds"] + training)
    deep, _ = plan(capsys, [*words, "--head", "linear,bifpn1", "--levels", "p4,p5"])
    again = {way["name"]: way for way in deep["ways"]}
    assert again["deep store with source images"]["bytes"] == pytest.approx(deep["bytes"], rel=0.01)
    assert again.keys() == ways.keys(), "of the same heads, which need the levels that are left out"
    monkeypatch.setattr("pipelines.forecast.storage_options.free_bytes", lambda _: stored["bytes"])
    small, out = plan(capsys, [*words, "--head", "linear,bifpn1"])
    assert small["ways"][-1]["name"] == "full store" and "; DOES NOT FIT" in out


def test_a_test_split_is_planned_without_heads(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    at, views = words.index("--crop-size"), words.index("--views")
    words = [*words[:at], "--short-side", "64", *words[at + 2 : views], "--split", "validation"]
    summary, _ = plan(capsys, words)
    assert summary["estimated_seconds"] > 0 and "caching" not in summary


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 1}', "\0"])
def test_a_damaged_cache_is_measured_anew(damage: str, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE_NAME).write_text(damage)
    assert SpeedCache().get("disk", {"a": 1}, lambda: {"x": 1.0}) == {"x": 1.0}
    assert SpeedCache().get("disk", {"a": 1}, lambda: {"x": 2.0}) == {"x": 1.0}
    assert SpeedCache().get("disk", {"a": 2}, lambda: {"x": 2.0}) == {"x": 2.0}
    assert SpeedCache(remeasure=True).get("disk", {"a": 1}, lambda: {"x": 3.0}) == {"x": 3.0}


@pytest.mark.parametrize(("seconds", "steps"), [(0.01, 1 + 3), (30.0, 1 + 1)])
def test_a_slow_step_is_measured_once(seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One to warm up, then three, or as many as make a few seconds."""
    taken: list[float] = []

    def timed(work: Callable[[], None]) -> float:
        work()
        taken.append(seconds)
        return seconds

    monkeypatch.setattr(head_probe, "STEPS", 3)
    monkeypatch.setattr(head_probe, "_timed", timed)
    pyramid = backbone_card("swinv2-nano").pyramid
    training = TrainConfig(head="linear", batch_size=2)
    found = head_probe.head_step_seconds(training, "segmentation", pyramid, 3, (32, 32), torch.device("cpu"))
    assert (1 + len(taken), found) == (steps, seconds)


def test_old_figures_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SpeedCache().get("disk", {}, lambda: {"x": 1.0})
    with monkeypatch.context() as newer:
        newer.setattr("pipelines.forecast.measurement_cache.FIGURES_REVISION", FIGURES_REVISION + 1)
        assert SpeedCache().get("disk", {}, lambda: {"y": 2.0}) == {"y": 2.0}
    monkeypatch.setattr("pipelines.forecast.measurement_cache.MAX_AGE_S", -1.0)
    assert SpeedCache().get("disk", {}, lambda: {"x": 2.0}) == {"x": 2.0}


def test_an_unwritable_cache_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PERMAFROST_CACHE", str(tmp_path / "file" / "below"))
    assert SpeedCache().get("disk", {}, lambda: {"x": 1.0}) == {"x": 1.0}


def test_a_saving_of_nothing_never_pays() -> None:
    assert caching_advice.break_even(10.0, 0.0) is None


@pytest.mark.parametrize("more", ["--codec float16", "--views 3", "--pixels stored"])
def test_plan_counts_bytes_within_one_percent(
    more: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Targets and pixels are measured: the smooth images and blocks here are far from the rule of thumb."""
    words = shlex.split(
        f"--dataset ade20k --data {data} --model swinv2-nano --weights random:0 --crop-size 256 --device cpu"
        f" --stores {tmp_path / 'features'} --json {more}"
    )
    assert main(["extract", *words]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    files = [p for p in Path(done["store"]).rglob("*") if p.is_file() and p.parent.name != "log"]
    on_disk = sum(path.stat().st_size for path in files)
    assert on_disk == pytest.approx(done["bytes"], rel=0.01)
    assert len(files) == done["files"]
