"""Runs of small extractions, and what their stores hold."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extract.backbones.loading import FrozenBackbone
from extract.datasets import dataset_module, open_dataset, view_recipe
from extract.datasets.contract import Dataset
from extract.extractor.fit_codec import fit_codec
from extract.extractor.run import Progress, Summary, extract
from extract.planning.dataset_identity import own_description
from extract.planning.plan import build_plan, needed_bytes
from stores import open_store
from stores.checks.status import store_status
from stores.format.bounded_files import StoreFolder
from stores.format.plan import StorePlan
from stores.reading.committed_store import read_plan
from stores.shards.disk import Files
from stores.writing.writer import StoreWriter

Row = tuple[str, int]
"""Record key and view."""


class Wrapped:
    """A backbone that is another one but for what a test changes."""

    def __init__(self, backbone: FrozenBackbone, change: Callable[[str, Tensor], Tensor]) -> None:
        self._backbone, self._change, self.card = backbone, change, backbone.card
        self.device, self.precision = backbone.device, backbone.precision
        self.weights_sha256, self.pyramid = backbone.weights_sha256, backbone.pyramid
        self.calls = 0

    def __call__(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> Mapping[str, Tensor]:
        self.calls += 1
        levels = self._backbone(pixels_NHWC, valid_hw)
        return {name: self._change(name, x.clone()) for name, x in levels.items()}


class Stopping(Wrapped):
    """A backbone that ends the run of a new store at its batch number `batch`, counted from 0, once
    `after_shards` shards are written: what it leaves must not depend on how fast its threads are."""

    def __init__(self, backbone: Any, stores: Path, batch: int = 0, after_shards: int = 0) -> None:
        super().__init__(backbone, lambda _, x: x)
        self._stores, self._batch, self._after_shards = stores, batch, after_shards

    def __call__(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> Mapping[str, Tensor]:
        if self.calls < self._batch:
            return super().__call__(pixels_NHWC, valid_hw)
        for _ in range(30_000):
            if self._written() >= self._after_shards:
                raise KeyboardInterrupt
            time.sleep(0.01)
        raise AssertionError(f"{self._written()} shards after 5 minutes, not {self._after_shards}")

    def _written(self) -> int:
        (path,) = self._stores.iterdir()
        return len(read_plan(StoreFolder(path), None).shards()) - len(store_status(path).missing)


def planned(dataset: Dataset, backbone: Any, recipe: str | None = None, **choices: Any) -> StorePlan:
    """Views of 64 px: the data set's own for a training split, `single` for a test split, unless named."""
    named = {"name": dataset.name, "class_names": list(dataset.class_names), **own_description(dataset)}
    training = dataset_module(named).TRAINING_VIEWS
    name = recipe or (training[0] if dataset.is_training else "single")
    sizes = {"crop_size": 64} if name in training else {"short_side": 64}
    return build_plan(
        dataset,
        view_recipe(named, name, **sizes),
        backbone.card,
        weights_sha256=backbone.weights_sha256,
        precision=backbone.precision,
        **choices,
    )


def run(
    data: Path | Dataset,
    stores: Path,
    backbone: Any,
    *,
    split: str = "training",
    subset: str | None = None,
    files: Files | None = None,
    workers: int = 2,
    max_failed: int | None = None,
    codec_limit: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    **choices: Any,
) -> tuple[Path, Summary]:
    """Extracts a split into a store under `stores`; its path, and what was done."""
    dataset = open_dataset("ade20k", data, split, subset) if isinstance(data, Path) else data
    plan = fit_codec(dataset, planned(dataset, backbone, **choices), backbone)
    writer = StoreWriter.open_or_create(stores, plan, needed_bytes=needed_bytes(plan, dataset), files=files)
    summary = extract(
        dataset,
        plan,
        backbone,
        writer,
        workers=workers,
        max_failed=max_failed,
        codec_limit=codec_limit,
        progress=progress,
    )
    return writer.path, summary


def row_digests(path: Path) -> dict[Row, str]:
    """sha256 of everything a store holds of each row: encoded features, targets and pixels."""
    digests = {}
    with open_store(path) as store:
        for row in range(len(store)):
            digest = hashlib.sha256()
            for parts in store.read_encoded([row]).values():
                for name in sorted(parts):
                    digest.update(parts[name].tobytes())
            for name, target in sorted(store.read_targets([row])[0].items()):
                digest.update(name.encode() + str(target.shape).encode() + target.tobytes())
            if store.plan.pixels:
                digest.update(store.read_pixels([row]).tobytes())
            digests[store.keys[row], int(store.views[row])] = digest.hexdigest()
    return digests


def skipped(path: Path) -> dict[Row, tuple[int, str]]:
    """Outcome code and reason of the rows a store left out."""
    with open_store(path) as store:
        return {(key, view): (code, reason) for key, view, code, reason in store.skipped}


def live_levels(
    backbone: FrozenBackbone, pixels: np.ndarray, valid_hw: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Float32 (y, x, C) of one image alone."""
    levels = backbone(torch.from_numpy(pixels[None]), torch.tensor([valid_hw]))
    return {name: x[0].float().numpy() for name, x in levels.items()}
