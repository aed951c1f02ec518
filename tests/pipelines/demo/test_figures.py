"""What the demo claims, in full: minutes, so `slow`; `pytest -m slow -s tests/demo` prints the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pipelines.config import EvaluateConfig
from pipelines.demo.ade20k import DemoSize, Score, fill_stores, make_scenes, train_and_measure
from pipelines.demo.made.scenes import make_scene
from pipelines.demo.steps import DemoStores, Training
from pipelines.metrics.pixel_scores import mean_iou
from pipelines.metrics.segmentation import Confusion
from pipelines.verbs import evaluate

pytestmark = pytest.mark.slow
SIZE = DemoSize()
REDRAWN_RATES = ("3e-3", "1e-2", "3e-2")
"""Around the demo's own 1e-2."""


class Measured:
    """Stores and scores, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = make_scenes(root / "data", SIZE)
        self._stores: dict[tuple[str, str], DemoStores] = {}
        self._scores: dict[tuple[str, ...], Score] = {}

    def stores(self, weights: str = "timm", codec: str = "int8") -> DemoStores:
        key = (weights, codec)
        if key not in self._stores:
            folder = self.root / weights.replace(":", "-") / codec
            self._stores[key] = fill_stores(self.data, folder, SIZE, weights=weights, codec=codec)
        return self._stores[key]

    def score(
        self, head: str, weights: str = "timm", codec: str = "int8", more: tuple[str, ...] = ()
    ) -> Score:
        key = (head, weights, codec, *more)
        if key not in self._scores:
            runs = self.root / "runs" / "-".join(part.strip("-").replace(":", "-") for part in key)
            stores = self.stores(weights, codec)
            self._scores[key] = train_and_measure(head, stores, runs, Training(more=more))
            print(f"\nFIGURE {' '.join(key)}: mIoU {100 * self._scores[key].miou:.2f}")
        return self._scores[key]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return Measured(tmp_path_factory.mktemp("figures"))


def test_linear_finds_the_classes_in_the_frozen_features(measured: Measured) -> None:
    assert measured.score("linear").miou >= 0.5


def test_pretraining_is_worth_at_least_twice_redrawn_weights(measured: Measured) -> None:
    redrawn = [measured.score("linear", "random:0", more=("--lr", rate)).miou for rate in REDRAWN_RATES]
    assert measured.score("linear").miou >= 2 * max(redrawn)


def test_a_deeper_head_is_worth_its_depth(measured: Measured) -> None:
    assert measured.score("bifpn1").miou >= measured.score("linear").miou + 0.03


def test_colour_does_not_reveal_the_class(measured: Measured) -> None:
    nearest = colour_miou()
    print(f"\nFIGURE k-NN on RGB: mIoU {100 * nearest:.2f}")
    assert nearest <= 0.5 * measured.score("linear").miou


def test_codecs_agree(measured: Measured) -> None:
    """A linear head is trained and measured on each codec; a deeper one is only measured on both.

    The loss of a deeper head has many minima, so two trainings of it differ by more than the codecs do.
    """
    linear = [measured.score("linear", codec=codec).miou for codec in ("int8", "float16")]
    assert abs(linear[0] - linear[1]) <= 0.005
    bifpn = measured.score("bifpn1")
    other = str(measured.stores(codec="float16").validation)
    on_float16 = evaluate.run(EvaluateConfig(run=str(bifpn.run), store=other))["miou"]
    print(f"\nFIGURE bifpn1 trained on int8, measured on float16: mIoU {100 * on_float16:.2f}")
    assert abs(bifpn.miou - on_float16) <= 0.005


def colour_miou(neighbours: int = 15, pixels_a_scene: int = 800) -> float:
    """mIoU of naming each held-out pixel after the training pixels nearest in RGB."""
    rng = np.random.default_rng(0)
    colours, names = [], []
    for number in range(SIZE.training_scenes // 2):
        scene = make_scene("training", number)
        taken = rng.choice(scene.labels.size, pixels_a_scene, replace=False)
        colours.append(scene.rgb.reshape(-1, 3)[taken])
        names.append(scene.labels.ravel()[taken])
    tree, known = cKDTree(np.concatenate(colours).astype(np.float64)), np.concatenate(names)
    counts = Confusion(150)
    for number in range(SIZE.validation_scenes // 2):
        scene = make_scene("validation", number)
        _, nearest = tree.query(scene.rgb.reshape(-1, 3).astype(np.float64), k=neighbours)
        votes = np.apply_along_axis(lambda row: np.bincount(row, minlength=150).argmax(), 1, known[nearest])
        counts.update(torch.from_numpy(votes.reshape(scene.labels.shape)), torch.from_numpy(scene.labels))
    return mean_iou(counts.on_host())
