"""What the project rests on: training from a store is training on the live backbone.

(a) A row of a store is the live backbone's output on the row's view, within the codec's rounding.
(b) Losses over 30 steps at the recipe's peak rate: from the store and from live features sent through the
same codec equal bit for bit on a CPU; from the store and from raw live features within a bound, which wrong
features or targets exceed ten times over.

The head is `linear` without its input norms, which would hide a wrong scale: the most sensitive one there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from extract.backbones.loading import FrozenBackbone, backbone_card, build_trunk, load_backbone
from extract.backbones.weights import get_weights
from extract.codecs.on_device import encode
from extract.datasets import open_dataset
from extract.sources.byte_sources import decode_image
from extract.views.view import View
from pipelines.config import ScheduleConfig, TrainConfig
from pipelines.feed.datamodule import StoreData, Stretch, TrainingData
from pipelines.feed.joined_stores import JoinedStores, RowIndex, Rows
from pipelines.feed.row_order import EndlessRows
from pipelines.feed.store_feed import Batch
from pipelines.feed.transfer import dequantise
from pipelines.live.backbone import live_features
from pipelines.runs.metrics_csv import read_metrics
from pipelines.training.build_module import build_module
from pipelines.training.fit import fit
from stores.reading.reader import Store, open_store
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.extracted import MODEL, WEIGHTS, extract_store, write_coloured_data

STEPS, BATCH, VIEWS = 30, 4, 2
CONFIG = TrainConfig(  # the recipe's rate is the default
    head="linear",
    head_settings={"input_norm": "none"},
    max_steps=STEPS,
    batch_size=BATCH,
    schedule=ScheduleConfig(shape="constant", warmup_steps=0),
    device="cpu",
    log_every=1,
)
BOUNDS = {"float16": 5e-3, "int8": 2e-2}
Features = dict[str, torch.Tensor]
"""Of one row: level -> float32 (1, C, y, x)."""
Labels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Drawn weights whose last stage is the loudest, as in a trained SwinV2: scales of levels then differ."""
    card = backbone_card(MODEL)
    tensors = get_weights(card, WEIGHTS, build_trunk(card)).tensors
    louder = {
        name: tensor * (10 if name.startswith("layers.3.") and name.endswith("norm2.weight") else 1)
        for name, tensor in tensors.items()
    }
    path = tmp_path_factory.mktemp("weights") / "louder.safetensors"
    save_file(louder, path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured_data(tmp_path_factory.mktemp("data"))


@dataclasses.dataclass(frozen=True)
class Live:
    """The rows of a store, made again from the images."""

    store: Store
    features: list[Features]
    """Of each row."""
    flipped: list[Features]
    """Of the mirrored view of each row."""
    labels: list[Labels]
    valid_hw: list[tuple[int, int]]


@pytest.fixture(scope="module", params=["float16", "int8"])
def live(
    request: pytest.FixtureRequest, data: Path, weights: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("features")
    path = extract_store(data, folder, request.param, "training", VIEWS, weights)
    backbone = load_backbone(backbone_card(MODEL), weights)
    with open_store(path) as store:
        yield make_again(store, backbone, data)


def make_again(store: Store, backbone: FrozenBackbone, data: Path) -> Live:
    dataset = open_dataset("ade20k", data, "training")
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    features, flipped, labels, valid_hw = [], [], [], []
    for row in range(len(store)):
        index, view = index_of[store.keys[row]], View.from_params(store.params[row])
        rgb = decode_image(dataset.read_source(index))
        for turned, found in ((view, features), (dataclasses.replace(view, flip=not view.flip), flipped)):
            found.append(live_features(backbone, turned.apply_image(rgb)[None], [view.valid_hw]))
        labels.append(view.apply_labels(dataset.read_truth(index)))
        valid_hw.append(view.valid_hw)
    return Live(store, features, flipped, labels, valid_hw)


def test_rows_are_the_live_backbones(live: Live) -> None:
    for row, expected in enumerate(live.features):
        encoded = live.store.read_encoded([row])
        for level, x_NCyx in live.store.read_features([row]).items():
            exact = expected[level].numpy()
            if live.store.codec == "float16":
                assert np.array_equal(x_NCyx, exact.astype(np.float16).astype(np.float32))
                continue
            half_step = encoded[level]["scale"][:, :, None, None].astype(np.float64) / 2
            assert (np.abs(x_NCyx.astype(np.float64) - exact) <= half_step * (1 + 1e-4)).all()
            assert (np.abs(x_NCyx - exact).max(axis=(0, 2, 3)) > 0).any()


def test_targets_are_replayed(live: Live) -> None:
    stored = live.store.read_targets(range(len(live.store)), ("labels",))
    assert all(np.array_equal(row["labels"], labels) for row, labels in zip(stored, live.labels, strict=True))


class LiveData(TrainingData):
    """Batches in the order of a store, of features and labels made by functions of the row."""

    def __init__(
        self,
        like: StoreData,
        index: RowIndex,
        valid_hw: list[tuple[int, int]],
        features: Callable[[int], Features],
        labels: Callable[[int], Labels],
    ) -> None:
        super().__init__()
        self.name, self.pyramid, self.identity = like.name, like.pyramid, like.identity
        self._rows = EndlessRows(index, batch_size=BATCH, seed=0)
        self._valid_hw, self._features, self._labels = valid_hw, features, labels

    def describe(self) -> str:
        return "live"

    def batches(self, stretch: Stretch) -> Iterator[Batch]:
        return (self._batch(rows) for rows in self._rows.batches(stretch.start_step, stretch.stop_step))

    def _batch(self, rows: Rows) -> Batch:
        made = [self._features(int(row)) for row in rows]
        # as a store keeps them: channels last in memory
        stacked = {
            level: torch.cat([each[level].permute(0, 2, 3, 1) for each in made]).permute(0, 3, 1, 2)
            for level in self.levels
        }
        labels = [{"labels": torch.from_numpy(self._labels(int(row)))} for row in rows]
        return Batch(
            features=stacked, targets=labels, valid_hw=[self._valid_hw[row] for row in rows], keys=()
        )

    def close(self) -> None:
        pass


Train = Callable[..., npt.NDArray[np.float64]]


@pytest.fixture(scope="module")
def train(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains on the store, or on what the two functions give of each row; returns the loss of each step."""

    def losses(
        features: Callable[[int], Features] | None = None,
        labels: Callable[[int], Labels] = live.labels.__getitem__,
        **changes: object,
    ) -> npt.NDArray[np.float64]:
        config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
        joined = JoinedStores.open([live.store.path], verify="always", threads=1)
        from_store = StoreData(joined, config)
        data: TrainingData = from_store
        if features is not None:
            data = LiveData(from_store, joined.index, live.valid_hw, features, labels)
        module = build_module(config, data)
        folder = tmp_path_factory.mktemp("run")
        (folder / "checkpoints").mkdir()
        fit(config, module, data, folder, torch.device("cpu"))
        from_store.close()
        return np.array([float(row["loss"]) for row in read_metrics(folder / "metrics.csv")])

    return losses


@pytest.fixture(scope="module")
def from_store(train: Train) -> npt.NDArray[np.float64]:
    return train()


def through_codec(store: Store, features: Features) -> Features:
    return {
        level: dequantise(store.codec, encode(store.codec, x_NCyx.permute(0, 2, 3, 1)))
        for level, x_NCyx in features.items()
    }


def largest_difference(losses: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    return float(np.max(np.abs(losses - expected) / expected))


def test_the_loss_falls(from_store: npt.NDArray[np.float64]) -> None:
    assert len(from_store) == STEPS
    assert from_store[-3:].mean() < 0.8 * from_store[0]


def test_same_codec_same_losses(live: Live, train: Train, from_store: npt.NDArray[np.float64]) -> None:
    again = train(lambda row: through_codec(live.store, live.features[row]))
    assert again.tobytes() == from_store.tobytes()


@pytest.mark.slow
def test_same_codec_same_losses_of_upernet(live: Live, train: Train) -> None:
    upernet = {"head": "bifpn1", "head_settings": {"width": 128}}
    expected = train(**upernet)
    assert expected[-3:].mean() < 0.8 * expected[0]
    assert (
        train(lambda row: through_codec(live.store, live.features[row]), **upernet).tobytes()
        == expected.tobytes()
    )
    assert (
        largest_difference(expected, train(live.features.__getitem__, **upernet)) <= BOUNDS[live.store.codec]
    )


def test_same_codec_same_losses_of_mask2former(live: Live, train: Train) -> None:
    """Whose losses hang on drawn points: the same ones, for a step's draws follow from the step alone."""
    small = {"width": 32, "queries": 16, "points": 112}
    mask2former = {"head": "m2f-pd1-td3", "head_settings": small, "max_steps": 6}
    expected = train(**mask2former)
    again = train(lambda row: through_codec(live.store, live.features[row]), **mask2former)
    assert again.tobytes() == expected.tobytes()


def test_raw_features_give_nearly_the_same_losses(
    live: Live, train: Train, from_store: npt.NDArray[np.float64]
) -> None:
    raw = train(live.features.__getitem__)
    assert 0 < largest_difference(from_store, raw) <= BOUNDS[live.store.codec]


@pytest.mark.parametrize("wrong", ["flipped view", "neighbouring row", "swapped scales", "shifted targets"])
def test_wrong_rows_are_noticed(
    wrong: str, live: Live, train: Train, from_store: npt.NDArray[np.float64]
) -> None:
    if wrong == "shifted targets":
        losses = train(live.features.__getitem__, lambda row: np.roll(live.labels[row], (16, 16), (0, 1)))
    elif wrong == "flipped view":
        losses = train(live.flipped.__getitem__)
    elif wrong == "neighbouring row":
        losses = train(lambda row: live.features[(row + 1) % len(live.features)])
    else:
        losses = train(lambda row: with_swapped_scales(live.features[row]))
    assert largest_difference(losses, from_store) > 10 * BOUNDS[live.store.codec]


def with_swapped_scales(features: Features) -> Features:
    """Levels p2 and p5 under each other's scales, as if two arrays of an int8 store were mixed up."""
    encoded = {level: encode("int8", x_NCyx.permute(0, 2, 3, 1)) for level, x_NCyx in features.items()}
    fine, coarse = encoded["p2"]["scale"], encoded["p5"]["scale"]
    encoded["p2"]["scale"] = coarse[:, : fine.shape[1]]
    encoded["p5"]["scale"] = fine.repeat(1, coarse.shape[1] // fine.shape[1])
    return {level: dequantise("int8", parts) for level, parts in encoded.items()}
