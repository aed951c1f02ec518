"""Real Kinetics clips from file to figures: extracted, learned by heart, measured on 12 views, predicted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines.cli.arguments import parse
from pipelines.config import EvaluateConfig, ExtractConfig, PredictConfig, TrainConfig
from pipelines.evaluation.store_views import store_views
from pipelines.runs.trained_head import load_head
from pipelines.verbs import evaluate, extract_features, predict, train_head
from stores.reading.reader import open_store

CPU = torch.device("cpu")


def share_right(run: Path, store: Path) -> float:
    """Of a training store's rows, in evaluation mode."""
    head, _ = load_head(run, CPU)
    right = []
    with open_store(store) as opened, torch.no_grad():
        for view in store_views(opened, head.levels, ("label",), CPU):
            scores_NK = head(view.features, [view.valid_hw])
            right.append(int(scores_NK.argmax()) == int(view.truth["label"]))
    return sum(right) / len(right)


@pytest.mark.ci
@pytest.mark.data
def test_global4_overfits_the_training_clips(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six clips of four of the 400 classes, two views each, at 64 px over swinv2-nano."""
    common = {"dataset": "k400", "data": str(samples / "k400"), "model": "swinv2-nano", "crop_size": 64}
    folder = str(tmp_path / "features")
    train, val = (
        Path(extract_features.run(ExtractConfig(**common, stores=folder, split=split, views=views))["store"])
        for split, views in (("train", 2), ("val", "4x3"))
    )
    run = tmp_path / "run"
    words = ["--head", "global4", "--recipe", "demo-k400", "--batch-size", "6", "--max-steps", "80"]
    train_head.run(parse(TrainConfig, [*words, "--store", str(train), "--run", str(run)]))
    assert share_right(run, train) == 1.0

    figures = evaluate.run(EvaluateConfig(run=str(run), store=str(val)))
    assert (figures["views"], figures["records"]) == ("4x3", 2)
    last = capsys.readouterr().out.splitlines()[-3]  # before the pictures and the next step
    assert re.fullmatch(r"top-1 \d+\.\d\d top-5 \d+\.\d\d \(4x3\), 2 records", last)

    source = sorted((samples / "k400" / "videos" / "flipping pancake").iterdir())[0]
    predict.run(PredictConfig(run=str(run), input=str(source), out=str(tmp_path / "out")))
    said = json.loads((tmp_path / "out" / f"{source.stem}.json").read_text())
    assert said["frames"] > 64 and len(said["classes"]) == 5
    assert said["classes"][0]["probability"] >= said["classes"][1]["probability"]
    with Image.open(tmp_path / "out" / f"{source.stem}.png") as picture:
        assert picture.size[0] > 1000
