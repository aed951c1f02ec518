"""Naming videos: figures against torchmetrics, the mean over views, the tables and the picture."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from heads import build_head
from pipelines.accuracy.named_records import name_record
from pipelines.pictures.clips import worst_classes
from pipelines.tasks import TestView, task_of
from pipelines.tasks.video import Video, VideoFigures, record_probabilities
from tests.heads.pyramids import clip_pyramid

CPU = torch.device("cpu")
HW = (64, 64)


def views_of(probabilities: dict[str, Tensor], labels: dict[str, int]) -> Iterator[TestView]:
    """One view for each row of (views, K) of a record; its features are what `Echo` answers."""
    for key, rows in probabilities.items():
        for row_K in rows:
            yield TestView(
                key=key,
                features={"p5n": row_K.view(1, -1, 1, 1, 1)},
                valid_hw=HW,
                params={"flip": 0.0},
                original_hw=(240, 320),
                truth={"original_label": np.array(labels[key])},
            )


def echo(classes: int) -> SimpleNamespace:
    """A head whose features are its probabilities."""
    return SimpleNamespace(
        num_classes=classes, predict=lambda features, sizes, output: list(features["p5n"].flatten(1))
    )


def measured(probabilities: dict[str, Tensor], labels: dict[str, int], views_name: str) -> VideoFigures:
    classes = next(iter(probabilities.values())).shape[1]
    views = views_of(probabilities, labels)
    return Video().measure(echo(classes), views, views_name=views_name, device=CPU, bf16=False)


def random_records(records: int, views: int, classes: int) -> tuple[dict[str, Tensor], dict[str, int]]:
    generator = torch.Generator().manual_seed(records)
    keys = [f"clip{number}" for number in range(records)]
    drawn = torch.randn(records, views, classes, generator=generator).softmax(-1)
    labels = torch.randint(0, classes, (records,), generator=generator).tolist()
    return dict(zip(keys, drawn, strict=True)), dict(zip(keys, labels, strict=True))


@pytest.mark.oracle
@pytest.mark.parametrize("classes", [4, 9])
def test_figures_equal_torchmetrics(classes: int) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, labels = random_records(60, 12, classes)
    found = measured(probabilities, labels, "4x3")
    mean = torch.stack([rows.mean(0) for rows in probabilities.values()])
    truth = torch.tensor(list(labels.values()))
    for share, top in ((found.top(1), 1), (found.top(5), min(5, classes))):
        expected = metrics.multiclass_accuracy(mean, truth, classes, top_k=top, average="micro")
        assert share == pytest.approx(expected.item())
    matrix = metrics.multiclass_confusion_matrix(mean, truth, classes)
    assert found.confusion().tolist() == matrix.tolist()
    by_class = metrics.multiclass_accuracy(mean, truth, classes, average="none")
    assert found.summary()["top1_by_class"] == pytest.approx(by_class.tolist())


def test_the_mean_over_views_decides() -> None:
    """Two views are for class 0 by a little, the third for class 1 by a lot."""
    rows = torch.tensor([[0.55, 0.45, 0.0], [0.55, 0.45, 0.0], [0.0, 1.0, 0.0]])
    found = measured({"a": rows}, {"a": 1}, "4x3")
    assert found.named[0].best == (1, 0, 2)
    assert found.named[0].probabilities == pytest.approx((1.9 / 3, 1.1 / 3, 0))
    assert found.line() == "top-1 100.00 top-5 100.00 (4x3), 1 records"


def test_views_of_a_record_go_through_a_real_head_together_as_alone() -> None:
    head = build_head("global1", "video", clip_pyramid(32), 5, seed=0).eval()
    torch.nn.init.ones_(head.blocks[0].attention_norm.weight)
    torch.nn.init.normal_(head.classifier.weight)
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(1, 32, 4, 2, cells, generator=generator) for cells in (2, 2, 3, 2)]
    views = [
        TestView(
            key="a",
            features={"p5n": x},
            valid_hw=(64, 32 * x.shape[-1]),
            params={},
            original_hw=HW,
            truth={"original_label": np.array(3)},
        )
        for x in clips
    ]
    ((key, label, mean_K),) = record_probabilities(head, views, device=CPU, bf16=False)
    alone = [head.predict(view.features, [view.valid_hw], [HW])[0] for view in views]
    assert (key, label) == ("a", 3)
    torch.testing.assert_close(mean_K, torch.stack(alone).mean(0))


def test_of_equally_likely_classes_the_lower_number_comes_first() -> None:
    """So that a head that says nothing is not right by chance of an implementation."""
    assert name_record("a", 3, torch.full((400,), 1 / 400)).best == (0, 1, 2, 3, 4)


def test_tables_and_picture(tmp_path: Path) -> None:
    names = ("waking", "falling asleep", "filling a glass with something that takes its time")
    rows = torch.tensor([[0.7, 0.2, 0.1]])
    found = measured({"a": rows, "b": rows, "c": rows.flip(1)}, {"a": 0, "b": 1, "c": 2}, "single")
    found.write(tmp_path, "-x", names)
    with (tmp_path / "records-x.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["key", "class", "taken_for", "probability", "then"]
    assert table[2] == ["b", names[1], names[0], "0.7000", f"{names[1]}; {names[2]}"]
    with Image.open(tmp_path / "confusion-x.png") as picture:
        shades = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    blue = shades[(shades[:, 2] > 90) & (shades[:, 0] < 30)]  # 100 %: two of three classes are named right
    assert len(blue) > 500
    assert found.summary()["top1"] == pytest.approx(2 / 3)
    assert found.scores() == {"top-1": pytest.approx(2 / 3), "top-5": 1.0}


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 7).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 3), min_size=k, max_size=k), min_size=k, max_size=k)
    ),
    st.integers(1, 5),
)
def test_worst_classes_by_sorting(counts: list[list[int]], most: int) -> None:
    matrix = np.array(counts)
    rows, columns = worst_classes(matrix, most)
    shares = {k: matrix[k, k] / matrix[k].sum() for k in range(len(matrix)) if matrix[k].sum()}
    assert len(rows) == min(most, len(shares))
    assert sorted(shares[k] for k in rows) == [shares[k] for k in rows] == sorted(shares.values())[:most]
    assert columns[: len(rows)] == rows and len(set(columns)) == len(columns)
    for k in rows:
        wrong = {j: matrix[k, j] for j in range(len(matrix)) if j != k and matrix[k, j]}
        assert not wrong or max(wrong.values()) in [wrong.get(j) for j in columns]


def test_nothing_measured() -> None:
    found = VideoFigures(named=(), num_classes=3, views="single")
    assert found.scores() == {"top-1": None, "top-5": None}
    assert found.line() == "top-1 - top-5 - (single), 0 records: no record to classify"


def test_the_task_is_found_and_says_what_it_needs() -> None:
    task = task_of("video")
    assert (task.training_targets, task.test_targets) == (("label",), ("original_label",))
    target = task.head_targets({"label": np.array(7, np.int16)})["label"]
    assert target.dtype == np.int64 and target.shape == () and target == 7
    made = task.made_targets(50, HW, 3, torch.Generator().manual_seed(0))
    assert {int(row["label"]) for row in made} == {0, 1, 2}
    said = task.describe_prediction({"classes": [{"name": "filling", "probability": 0.912}]})
    assert said == "91 % filling"
