"""The demo of clips: exact reversals, the pipeline in small, and classes that differ only in frame order."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from extract.datasets import open_dataset, view_recipe
from pipelines.config import DemoConfig, PredictConfig
from pipelines.demo.k400 import (
    CROP_PX,
    HEADS,
    LINEAR,
    ClipDemoSize,
    class_scores,
    fill_stores,
    inside_pairs,
    make_clips,
    reversal_gap,
    run_k400_demo,
    train_and_measure,
)
from pipelines.demo.made import clips
from pipelines.demo.steps import Training
from pipelines.errors import UsageError
from pipelines.verbs import predict

TINY = ClipDemoSize(training_clips=6, validation_clips=2, max_steps=2)


def test_a_reversal_is_the_same_frames_backwards_in_file_and_view(tmp_path: Path) -> None:
    """Decoded by PyAV from first to last, and as the one test view renders them: to the last bit."""
    clips.write_training(tmp_path, 1)
    folder = clips.write_validation(tmp_path, 2)
    dataset, recipe = open_dataset("k400", folder, "val"), view_recipe("k400", "single", crop_size=CROP_PX)
    assert {record.frames for record in dataset.records} == {clips.FRAMES} and clips.FRAMES > 64
    rendered, frames, labels = {}, {}, {}
    for index, record in enumerate(dataset.records):
        view, data = recipe.view("k400", record, 0, 0), dataset.read_source(index)
        (rendered[record.key],) = dataset.media.render(data, record, [view])
        labels[record.key] = dataset.class_names[dataset.read_truth(index)]
        (path,) = folder.rglob(f"{record.key}.mp4")
        with av.open(str(path)) as container:
            assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
        with av.open(str(path)) as container:
            frames[record.key] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    forward = [key for key in rendered if clips.key_of_reversal(key) in rendered]
    assert len(forward) == 2
    for key in forward:
        other = clips.key_of_reversal(key)
        assert labels[other] == clips.reversal_of(labels[key]) != labels[key]
        assert np.array_equal(frames[key], frames[other][::-1])
        assert np.array_equal(rendered[key], rendered[other][::-1])
        assert not np.array_equal(rendered[key], rendered[other])


def test_clips_of_a_pair_differ_in_order_alone() -> None:
    """In what they are drawn from: how much of either texture, how fast and how often either way."""
    count = 60 * len(clips.CLASS_NAMES)
    labels = [clips.CLASS_NAMES[number % len(clips.CLASS_NAMES)] for number in range(count)]
    assert {labels.count(label) for label in clips.CLASS_NAMES} == {60}
    shares = np.array([clips._shares(clips.generator("clip", "train", n)) for n in range(count)])
    assert abs(shares.mean() - 0.5) < 0.02
    speeds = np.diff(shares).max(1)
    middles = (1 - shares).sum(1) / clips.MOMENTS
    assert abs(np.corrcoef(speeds, middles)[0, 1]) < 0.15
    first, again = clips.make_clip("train", 5), clips.make_clip("train", 5)
    assert np.array_equal(first.pictures, again.pictures)
    assert not np.array_equal(first.pictures, clips.make_clip("val", 5).pictures)


def test_figures_inside_pairs() -> None:
    """Of a clip and its reversal: what a head says of the other pairs' classes does not matter."""
    other = clips.CLASS_NAMES.index(clips.reversal_of(clips.CLASS_NAMES[0]))
    scores = torch.zeros(6)
    scores[0], scores[next(k for k in range(1, 6) if k != other)] = 1.0, 9.0
    changed = scores.clone()
    changed[0] += 0.25
    key = "val00000_000000_000010"
    both = {key: scores, clips.key_of_reversal(key): changed}
    labels = {key: 0, clips.key_of_reversal(key): other}
    assert inside_pairs(both, labels) == 0.5
    assert reversal_gap(both) == 0.25
    assert inside_pairs({key: scores}, {key: 0}) == 1.0


@pytest.mark.ci
def test_the_whole_pipeline_runs_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "demo"
    first = run_k400_demo(DemoConfig(dataset="k400", run=str(root), head="temporal1"), TINY)
    last = capsys.readouterr().out.splitlines()[-1]
    figures = r"inside pairs linear 50\.00, temporal1 \d+\.\d\d, 2 held-out clips and their reversals"
    assert re.fullmatch(figures, last)
    assert first["heads"]["linear"]["inside_pairs"] == 0.5
    assert first["heads"]["linear"]["reversal_gap"] < 1e-3
    with (root / "table.csv").open(newline="") as file:
        table = {name: cells for name, *cells in csv.reader(file)}
    assert table["in %"] == ["linear", "temporal1"]
    assert table["top-1"] == [f"{100 * first['heads'][head]['top1']:.2f}" for head in table["in %"]]
    with Image.open(root / "clips.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 1000

    (source,) = (root / "data").rglob("val00000_*.mp4")
    run = first["heads"]["temporal1"]["run"]
    predict.run(PredictConfig(run=run, input=str(source), out=str(tmp_path / "out")))
    said = json.loads((tmp_path / "out" / f"{source.stem}.json").read_text())
    assert {item["name"] for item in said["classes"]} < set(clips.CLASS_NAMES)
    assert (said["frames"], said["views"]) == (clips.FRAMES, 1)
    scores, _ = class_scores(Path(run), Path(first["stores"][1]))
    expected = scores[source.stem].softmax(0).sort(descending=True)
    assert [item["class"] for item in said["classes"]] == expected.indices[:5].tolist()
    # The store's codec moves them by less than that.
    found = [item["probability"] for item in said["classes"]]
    assert found == pytest.approx(expected.values[:5].tolist(), abs=1e-3)
    with Image.open(tmp_path / "out" / f"{source.stem}.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 1000

    written = {path: path.stat().st_mtime_ns for path in (root / "features").rglob("*") if path.is_file()}
    again = fill_stores(make_clips(root / "data", TINY), root / "features", TINY)
    assert [str(again.training), str(again.validation)] == first["stores"]
    assert written == {
        path: path.stat().st_mtime_ns for path in (root / "features").rglob("*") if path.is_file()
    }


def test_an_unknown_head_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="global4"):
        run_k400_demo(DemoConfig(dataset="k400", run=str(tmp_path / "demo"), head="bifpn1"), TINY)
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_attention_learns_frame_order_and_a_mean_does_not(tmp_path: Path) -> None:
    """The limits of docs/k400.md, at the demo's own size; the last two rows are the negative control."""
    size = ClipDemoSize()
    stores = fill_stores(make_clips(tmp_path / "data", size), tmp_path / "features", size)
    linear = train_and_measure(LINEAR, stores, tmp_path / "runs")
    assert linear.inside_pairs == pytest.approx(0.5, abs=0.02)
    assert linear.reversal_gap < 1e-3
    for head in HEADS:
        score = train_and_measure(head, stores, tmp_path / "runs")
        assert score.inside_pairs >= 0.9 and score.top1 >= 0.9
    for head in HEADS:
        blind = Training(more=("--head-settings.position_bias", "false"))
        score = train_and_measure(head, stores, tmp_path / "runs", blind)
        assert score.inside_pairs == pytest.approx(0.5, abs=0.05)
        print(head, "without position bias", score.inside_pairs, score.reversal_gap)
