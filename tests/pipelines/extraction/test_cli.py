"""`plan` and `extract` from the command line, on small made data and the nano backbone with drawn weights."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import pipelines.engines.one_process
import pipelines.forecast.planned_extraction
import pipelines.forecast.speed_probe
import pipelines.verbs.plan_store
from pipelines.__main__ import main
from pipelines.catalog.known_weights import known_weights
from pipelines.cli.arguments import parse
from pipelines.config import ExtractConfig
from stores import open_store
from tests.extract.datasets.made_ade20k import write_folder
from tests.pipelines.extraction.verb import TRAINING, VALIDATION, as_validation, result
from tests.unfinished import forget


def test_extract_then_nothing_to_do_then_verify(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, first, out, _ = result(capsys, "extract", *words, "--views", "2", "--shard-rows", "4")
    assert code == 0
    assert (first["rows_written"], first["rows"], first["done_before"]) == (12, 12, False)
    assert f"{first['store']} is complete: 12 rows written" in out
    code, again, out, _ = result(capsys, "extract", *words, "--views", "2", "--shard-rows", "4")
    assert (code, again["rows_written"], again["done_before"]) == (0, 0, True)
    assert "is complete: nothing to do" in out
    with open_store(first["store"]) as store:
        assert (len(store), store.levels, store.codec) == (12, ("p4", "p5"), "int8")
        sha256 = store.identity["backbone"]["weights_sha256"]
    assert known_weights(Path(first["store"]).parent, sha256) == "random:0"
    assert main(["verify", "--store", first["store"], "--full"]) == 0


def test_resume_does_what_is_missing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _, _ = result(capsys, "extract", *words, "--shard-rows", "2")
    store = Path(first["store"])
    before = {file: file.read_bytes() for file in (store / "bins").rglob("c/*/*/*/*")}
    forget(store, "64x64-1")
    assert result(capsys, "status", "--store", str(store))[1]["stores"][0]["missing_shards"] == ["64x64-1"]
    code, second, _, _ = result(capsys, "extract", *words, "--shard-rows", "2")
    assert (code, second["rows_written"], second["shards_written"]) == (0, 2, 1)
    assert {file: file.read_bytes() for file in (store / "bins").rglob("c/*/*/*/*")} == before


def test_a_resumed_extraction_reports_its_part_and_the_whole_store(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_folder(tmp_path / "broken", training=TRAINING, validation=1)
    image = sorted((broken / "images" / "training").iterdir())[0]
    image.write_bytes(image.read_bytes()[:200])
    words = [*words, "--data", str(broken), "--shard-rows", "2"]

    def summary_line() -> tuple[str, dict[str, Any]]:
        _, summary, out, _ = result(capsys, "extract", *words)
        assert (summary["total_rows_written"], summary["total_rows_skipped"]) == (TRAINING - 1, 1)
        return next(line for line in out.splitlines() if " is complete: " in line), summary

    line, first = summary_line()
    store = Path(first["store"])
    assert "is complete: 5 rows written, 1 skipped, in " in line and "rows/s" in line
    forget(store, "64x64-0")
    line, second = summary_line()
    assert "is complete: 5 rows, 1 skipped; in this run 2 rows written, 0 skipped, in " in line
    assert "rows/s" in line and (second["rows_written"], second["skipped"]) == (2, [])
    forget(store)
    line, third = summary_line()
    assert "is complete: 5 rows, 1 skipped; in this run 0 rows written, 0 skipped, in " in line
    assert "rows/s" not in line and third["rows_written"] == 0


def test_a_begun_store_says_how_it_is_continued_and_continues_from_where_it_was(
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    words = [*words, "--shard-rows", "2"]
    _, begun, out, _ = result(capsys, "extract", *words, "--max-shards", "1")
    store = begun["store"]
    left = Path(store) / "bins" / f"q.{'a' * 32}.partial"
    left.write_bytes(b"x" * 532)
    _, _, out, _ = result(capsys, "status", "--store", store)
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    typed = shlex.split(line.removeprefix("next: python -m pipelines "))
    assert typed[0] == "extract" and "--max-shards" not in typed and "to continue" not in out
    monkeypatch.chdir(tmp_path)
    assert f"relative to {Path(__file__).parents[3]}" in result(capsys, "status", "--store", store)[2]
    with caplog.at_level("INFO"):
        _, again, out, _ = result(capsys, *typed)
    assert again["store"] == store and again["total_rows_written"] == TRAINING
    assert "continues after 2 of 6 rows, 1 of 3 shards" in caplog.text
    assert "6 of 6 rows, " in caplog.text and " of 4 rows" not in caplog.text, "the whole is counted"
    assert "1 file (532 B) of interrupted runs are no part of the store; to remove: " in out
    assert f"python -m pipelines gc --store {store} --delete" in out
    assert left.exists()


def test_a_begun_store_without_settings_names_what_its_plan_holds(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As stores of earlier releases, whose log names the command line only."""
    store = Path(result(capsys, "extract", *words, "--shard-rows", "2", "--max-shards", "1")[1]["store"])
    for log in (store / "log").iterdir():
        log.unlink()
    _, summary, out, _ = result(capsys, "status", "--store", str(store))
    assert "to continue: the log names no settings: check --data, --weights of sha256 " in out
    typed = shlex.split(summary["stores"][0]["continue"].removeprefix("python -m pipelines "))
    given = {flag: words[words.index(flag) + 1] for flag in ("--data", "--weights", "--device", "--workers")}
    again = result(capsys, *typed, *(word for pair in given.items() for word in pair))[1]
    assert (again["store"], again["total_rows_written"]) == (str(store), TRAINING)


def test_test_split_in_several_bins(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _, _ = result(capsys, "extract", *as_validation(words), "--codec", "float16")
    assert code == 0
    assert len(summary["bins"]) > 1
    with open_store(summary["store"]) as store:
        assert len(store) == VALIDATION
        assert store.codec == "float16"
        assert "original_labels" in store.targets


def test_every_flag_of_the_design(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    more = "--split training --codec int8 --views 3 --pixels stored --subset 50% --engine local --seed 5"
    code, summary, _, _ = result(capsys, "extract", *words, *more.split())
    assert code == 0
    assert summary["rows_written"] == 3 * TRAINING // 2
    with open_store(summary["store"]) as store:
        assert store.read_pixels([0]).shape == (1, 64, 64, 3)
        assert set(store.views) == {0, 1, 2}
        assert store.identity["views"]["seed"] == 5


def test_plan_says_everything_and_writes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, out, _ = result(capsys, "plan", *words, "--views", "2", "--details")
    assert code == 0
    assert (summary["rows"], summary["records"], summary["bins"]) == (12, TRAINING, {"64x64": 12})
    assert set(summary["levels"]) == {"p4", "p5"}
    assert summary["free_bytes"] > summary["bytes"] > sum(summary["levels"].values())
    assert summary["estimated_seconds"] > 0
    for word in ("rows", "bins", "level     p4", "bytes", "files", "free", "time", "caching"):
        assert word in out
    assert not (tmp_path / "features").exists()
    _, done, _, _ = result(capsys, "extract", *words, "--views", "2")
    taken = sum(file.stat().st_size for file in Path(done["store"]).rglob("*") if file.is_file())
    assert taken == pytest.approx(summary["bytes"], rel=0.2)  # a store this small is mostly metadata


def test_plan_of_a_giant_needs_no_weights_and_extract_says_what_to_pass(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.forecast.speed_probe.available_bytes", lambda: 1 << 30)  # 1 GiB
    giant = [*words, "--model", "swinv2-g", "--weights", "timm"]
    code, summary, out, _ = result(capsys, "plan", *giant)
    assert (code, summary["rows"]) == (0, TRAINING)
    assert "weights   MISSING: swinv2-g" in out
    assert "time      not measured: an extraction needs the weights first" in out
    _, _, out, _ = result(capsys, "plan", *giant[:-1], "random:0")
    assert "time      not measured: 3." in out
    code, _, _, err = result(capsys, "extract", *giant)
    assert code == 2
    assert "SwinV2-G was never published" in err
    assert "--weights" in err


def test_a_backbone_too_large_for_the_device_is_reported(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setenv("PERMAFROST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipelines.forecast.speed_probe, "MEASURED_S", 0.05)
    with monkeypatch.context() as loading:
        loading.setattr("extract.backbones.frozen.fit_steps", full)
        code, _, _, err = result(capsys, "extract", *words)
        assert code == 1 and "unexpected error" not in err
        assert "extract: swinv2-nano does not fit the free memory of cpu (CUDA out of memory." in err
        assert not (tmp_path / "features").exists()
        code, summary, out, _ = result(capsys, "plan", *words)
        assert (code, summary["rows"]) == (0, TRAINING)
        assert "time      not measured: swinv2-nano does not fit" in out
    monkeypatch.setattr("extract.extractor.batch_shapes.shape_matters", lambda _: True)
    monkeypatch.setattr("extract.extractor.batch_shapes.encode_batch", full)
    code, _, out, _ = result(capsys, "plan", *words)
    assert code == 0
    assert "time      not measured: one row of 64x64 px does not fit" in out


def test_a_backbone_of_a_fixed_size_is_refused_before_anything_is_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = [*words, "--model", "timm:levit_128s"]
    for verb, more in (("extract", []), ("plan", ["--head", "linear"])):
        code, summary, _, _ = result(capsys, verb, *fixed, *more)
        assert code == 2
        assert "does not take images of 64x64 px" in summary["error"]
    assert not (tmp_path / "features").exists()
    assert result(capsys, "extract", *fixed, "--crop-size", "224")[0] == 0


def test_hub_weights_without_network(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("extract.backbones.hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("extract.backbones.hub.socket.getaddrinfo", unreachable)
    code, _, _, err = result(capsys, "extract", *words, "--model", "swinv2-t", "--weights", "timm")
    assert code == 2
    assert "Pass WEIGHTS=<path>" in err
    code, _, _, err = result(capsys, "extract", *words, "--weights", str(tmp_path / "none.pth"))
    assert code == 2
    assert "none.pth" in err


def test_the_levels_of_a_subset_are_those_of_its_rows(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise pipelines.verbs.plan_store.TooLarge("geometry is all that is looked at")

    monkeypatch.setattr(pipelines.verbs.plan_store, "measure_speed", stop)
    _, whole, _, _ = result(capsys, "plan", *words)
    _, half, out, _ = result(capsys, "plan", *words, "--subset", "50%", "--details")
    assert half["levels"] == {name: size // 2 for name, size in whole["levels"].items()}
    assert sum(half["levels"].values()) < half["bytes"]
    assert "kB a row)" in out and "0.00 MB" not in out


def test_a_broken_image_is_skipped_and_too_many_stop_the_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_folder(tmp_path / "broken", training=4, validation=1)
    image = sorted((broken / "images" / "training").iterdir())[2]
    image.write_bytes(image.read_bytes()[:200])
    words = [*words, "--data", str(broken)]
    code, summary, _, err = result(capsys, "extract", *words, "--max-failed", "0")
    assert code == 1
    assert image.stem in err
    assert "--max-failed" in err
    code, summary, out, _ = result(capsys, "extract", *words)
    assert code == 0
    assert [row["key"] for row in summary["skipped"]] == [image.stem]
    assert f"skipped   {image.stem} view 0" in out
    (state,) = result(capsys, "status", "--store", summary["store"])[1]["stores"]
    assert (state["written"], [row["key"] for row in state["skipped"]]) == (3, [image.stem])


def test_records_outside_the_subset_are_not_reported_as_skipped(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--subset", "50%", "--views", "2", "--shard-rows", "4")
    store = Path(result(capsys, "extract", *words, *more)[1]["store"])

    def state() -> dict[str, Any]:
        _, summary, out, _ = result(capsys, "status", "--store", str(store))
        (found,) = summary["stores"]
        assert (found["rows"], found["rows_outside_subset"], found["skipped"]) == (12, 6, [])
        line = f"{found['written']} of 6 rows of the subset written, 0 skipped (6 rows outside the subset)"
        assert line in out and "not in the subset" not in out
        return dict(found)

    whole = state()
    assert (whole["complete"], whole["written"]) == (True, 6)
    forget(store, "64x64-1")
    begun = state()  # outcomes cover two shards only
    assert (begun["complete"], begun["missing_shards"]) == (False, ["64x64-1"])


def test_no_usable_record_at_all_is_a_failure(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_folder(tmp_path / "broken", training=2, validation=1)
    for image in (broken / "images" / "training").iterdir():
        image.write_bytes(image.read_bytes()[:200])
    code, summary, _, _ = result(capsys, "extract", *words, "--data", str(broken))
    assert code == 1
    assert "2 records cannot be used" in summary["error"]


def test_a_source_that_changed_is_found(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_folder(tmp_path / "own", training=4, validation=1)
    _, summary, _, _ = result(capsys, "extract", *words, "--data", str(own))
    check = ["verify", "--store", summary["store"], "--source", "--data", str(own)]
    assert result(capsys, *check)[1]["stores"][0]["sources"] == 4
    image = min((own / "images" / "training").iterdir())
    changed = bytearray(image.read_bytes())
    changed[-3] ^= 1
    image.write_bytes(changed)
    code, _, _, err = result(capsys, *check)
    assert code == 3
    assert f"identity differs in sha256 of source {image.stem}: expected" in err
    image.unlink()  # its label map lists the record still
    code, _, _, err = result(capsys, *check)
    assert code == 3 and f"source {image.stem}" in err and "its image is missing" in err


def test_a_source_that_changed_stops_a_resumed_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_folder(tmp_path / "own", training=4, validation=1)
    words = [*words, "--data", str(own), "--views", "2", "--shard-rows", "4"]
    _, summary, _, _ = result(capsys, "extract", *words)
    store = Path(summary["store"])
    forget(store, "64x64-1")
    image = min((own / "images" / "training").iterdir())
    changed = bytearray(image.read_bytes())
    changed[-3] ^= 1
    image.write_bytes(changed)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 3
    assert image.stem in err


def test_interrupted(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipelines.engines.one_process, "extract", interrupt)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 130
    assert f"to continue: python -m pipelines extract {shlex.join(words)}" in err


def test_settings_from_a_file(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "extract.yaml"
    pairs = zip(words[::2], words[1::2], strict=True)
    lines = [f"{flag[2:].replace('-', '_')}: {value}\n" for flag, value in pairs]
    file.write_text("".join(lines) + "views: 2\n")
    code, summary, _, _ = result(capsys, "extract", "--config", str(file), "--views", "1")
    assert (code, summary["rows_written"]) == (0, TRAINING)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--data /nonexistent", "/nonexistent is not ADE20K: looked for"),
        ("--dataset coca", "did you mean coco?"),
        ("--model swinv2-x", "did you mean swinv2-"),
        ("--model convnext_atto", "did you mean timm:convnext_atto?"),
        ("--split test", "it has training, validation"),
        ("--levels p4,p9", "no level p9"),
        (
            "--codec int3",
            "--codec int3: unknown codec 'int3'; available: ",
        ),
        ("--engine rays", "--engine: expected one of local"),
        ("--views single", "training is a training split"),
        ("--views 0", "pass their number, from 1"),
        ("--split validation --crop-size 64", "crop_size"),
        ("--split validation --views 4", "validation is a test split"),
        ("--split validation --views 4x3", "single or ms-flip"),
        ("--crop-size 65", "multiple of 32"),
        ("--device tpu", "--device tpu"),
        ("--workers 0", "workers 0: expected 1 or more"),
        ("--batch-size -3", "batch_size -3: expected 1 or more"),
        ("--max-failed -1", "max_failed -1: expected 0 or more"),
        ("--codec-limit 0", "codec_limit 0: expected a number above 0"),
        ("--weights random:", "random:SEED"),
        ("--subset 0%", "subset"),
        ("--subset none.txt", "neither a share such as 1%"),
        ("--weights random:0 --model-args.nonsense 3", "nonsense"),
        ("--levels p4,p5 --shard-rows 3", "power of two"),
    ],
)
def test_invalid_requests_are_refused(
    more: str, message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _, err = result(capsys, "extract", *words, *more.split())
    assert code == 2, err
    assert message in err


def test_plan_answers_in_few_lines(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes, room, time, and last what to type; no head is built or measured unless one is named."""
    code, summary, out, err = result(capsys, "plan", *words)
    bytes_line, room, took, *_, following = [line for line in out.splitlines() if not line.startswith("{")]
    assert code == 0 and f"{TRAINING} rows" in bytes_line and " kB in " in bytes_line
    assert room.startswith("  room      fits: ") and took.startswith("  time      about ")
    start = "next: python -m pipelines extract "
    assert following.startswith(start)
    assert parse(ExtractConfig, shlex.split(following.removeprefix(start))) == parse(ExtractConfig, words)
    assert "caching" not in summary and "measuring this machine: head" not in err


@pytest.mark.parametrize("views", ["4097", "100000", "100000000"])
def test_more_views_than_a_store_holds_are_refused_before_any_is_drawn(
    words: list[str], views: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.forecast.planned_extraction.estimate_plan", None)
    code, summary, _, err = result(capsys, "plan", *words, "--views", views)
    assert code == 2 and f"--views {views}: expected at most 4,096 views" in summary["error"]
    assert "measuring" not in err


def test_nothing_is_measured_where_the_disk_is_too_small(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.forecast.plan_text.free_bytes", lambda _: 1000)
    code, summary, out, err = result(capsys, "plan", *words)
    assert code == 0 and "DOES NOT FIT: " in out and "measuring this machine" not in err
    assert "  time      not measured: the store needs room first" in out.splitlines()
    assert "estimated_seconds" not in summary and "next: " not in out
