"""Detection learns the same from a store as from the live backbone through the same codec, bit for bit.

On a CPU, with draws fixed by the step; targets are replayed from the annotations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.backbones.loading import backbone_card, load_backbone
from extract.codecs.on_device import encode
from extract.datasets import open_dataset
from extract.datasets.coco import CATEGORY_IDS, CLASS_NAMES
from extract.sources.byte_sources import decode_image
from extract.views.view import View
from heads import build_head
from pipelines.config import ExtractConfig, OptimizerConfig
from pipelines.demo.made.thing_files import write_thing_split
from pipelines.feed.transfer import dequantise
from pipelines.live.backbone import live_features
from pipelines.training.optimisation.optimizer import build_optimizer
from pipelines.verbs import extract_features
from stores.reading.reader import Store, open_store
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file

STEPS, BATCH, CROP_PX = 5, 3, 64
SMALL = {
    **dict.fromkeys(("width", "box_width", "mask_width"), 16),
    **dict.fromkeys(("rpn_samples", "roi_samples", "proposals"), 24),
    "candidates": 60,
}
Row = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], tuple[int, int]]
"""Features, targets and valid size."""


@dataclasses.dataclass(frozen=True)
class Both:
    store: Store
    live: list[dict[str, torch.Tensor]]
    """Of each row, the features of its view made again from the image."""
    flipped: list[dict[str, torch.Tensor]]
    """Of each row, those of the mirrored view."""
    targets: list[Mapping[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    root = tmp_path_factory.mktemp("coco")
    data = write_thing_split(root, "train2017", 3, CATEGORY_IDS, CLASS_NAMES)
    config = ExtractConfig(
        dataset="coco",
        data=str(data),
        model="swinv2-nano",
        stores=str(root / "features"),
        views=2,
        crop_size=CROP_PX,
        device="cpu",
        workers=1,
    )
    path = Path(extract_features.run(config)["store"])
    backbone, dataset = (
        load_backbone(backbone_card("swinv2-nano"), "timm"),
        open_dataset("coco", data, "train2017"),
    )
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    live, flipped, targets = [], [], []
    with open_store(path) as store:
        for row in range(len(store)):
            index, view = index_of[store.keys[row]], View.from_params(store.params[row])
            rgb = decode_image(dataset.read_source(index))
            for turned, found in ((view, live), (dataclasses.replace(view, flip=not view.flip), flipped)):
                found.append(live_features(backbone, turned.apply_image(rgb)[None], [view.valid_hw]))
            targets.append(dataset.targets(dataset.read_truth(index), view))
        yield Both(store, live, flipped, targets)


def losses(
    both: Both, features: Callable[[int], dict[str, torch.Tensor]], targets: list[Any]
) -> np.ndarray[Any, Any]:
    """The loss of each step of a training on what the function gives of each row."""
    head = build_head("bifpn1", "detection", both.store.pyramid, 80, seed=0, **SMALL)
    optimizer = build_optimizer(head, OptimizerConfig(lr=1e-3))
    found = []
    for step in range(STEPS):
        rows = [(step * BATCH + number) % len(both.store) for number in range(BATCH)]
        each = [features(row) for row in rows]
        # as a store keeps them: channels last in memory
        stacked = {
            level: torch.cat([one[level].permute(0, 2, 3, 1) for one in each]).permute(0, 3, 1, 2)
            for level in head.levels
        }
        wanted = [
            {name: torch.from_numpy(np.array(targets[row][name])) for name in both.store.targets}
            for row in rows
        ]
        valid_hw = [(int(height), int(width)) for height, width in both.store.valid_hw[rows]]
        terms = head.losses(stacked, wanted, valid_hw, torch.Generator().manual_seed(step))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return np.array(found)


def from_store(both: Both) -> np.ndarray[Any, Any]:
    def stored(row: int) -> dict[str, torch.Tensor]:
        encoded = both.store.read_encoded([row])
        return {
            level: dequantise(
                both.store.codec, {name: torch.from_numpy(array) for name, array in parts.items()}
            )
            for level, parts in encoded.items()
        }

    rows = both.store.read_targets(range(len(both.store)), both.store.targets)
    return losses(both, stored, list(rows))


def through_codec(both: Both, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        level: dequantise(both.store.codec, encode(both.store.codec, x_NCyx.permute(0, 2, 3, 1)))
        for level, x_NCyx in features.items()
    }


def test_same_codec_same_losses(both: Both) -> None:
    expected = from_store(both)
    again = losses(both, lambda row: through_codec(both, both.live[row]), both.targets)
    assert again.tobytes() == expected.tobytes()
    # What is wrong is noticed: the mirrored views, and the targets of the neighbouring row.
    for wrong in (
        losses(both, lambda row: through_codec(both, both.flipped[row]), both.targets),
        losses(both, lambda row: through_codec(both, both.live[row]), [*both.targets[1:], both.targets[0]]),
    ):
        assert np.abs(wrong - expected).max() > 1e-3


def test_the_targets_of_a_row_are_those_of_its_view(both: Both) -> None:
    stored = both.store.read_targets(range(len(both.store)))
    assert any(len(row["boxes"]) for row in stored)
    for row, made in zip(stored, both.targets, strict=True):
        for name in both.store.targets:
            assert np.array_equal(row[name], made[name]) and row[name].dtype == np.asarray(made[name]).dtype
