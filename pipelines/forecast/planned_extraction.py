"""Prepares an extraction for `plan` and `extract`: data set, views, card and geometry, no weights."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from extract.backbones.levels import PLAIN
from extract.backbones.loading import BackboneCard
from extract.datasets import Dataset, choose, open_dataset
from extract.planning.begun import begun_estimate
from extract.planning.compressed_size import measured
from extract.planning.label_sample import LabelSample, sample_labels
from extract.planning.plan import Estimate, estimate_plan
from extract.sources.byte_sources import MAX_SOURCE
from extract.views.fitted_views import fitted_to
from extract.views.recipes import ViewRecipe
from pipelines.catalog.choose_backbone import chosen_card, pixels_of, tagged_model
from pipelines.catalog.known_weights import digest_of_weights
from pipelines.catalog.stores import FoundStore, existing_folder, list_stores, stores_folder
from pipelines.config import PlanConfig
from pipelines.errors import UsageError
from pipelines.forecast.readable_levels import require_readable
from pipelines.forecast.usable_data import require_usable
from pipelines.machine.devices import choose_device
from stores.codecs import codec
from stores.errors import CodecError, SpaceError
from stores.format.canonical_json import diff_identity
from stores.format.plan import ShardId
from stores.format.row_table import MAX_ROWS
from stores.pyramid import PyramidSpec
from stores.remote.remote_files import UNLIMITED_BYTES
from stores.remote.store_url import StoreUrl
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)

GPU_PRECISION: Literal["fp16"] = "fp16"
GPU_BATCH_ROWS = 32
"""Defaults on a GPU."""
DEFAULT_CODEC, POOLED_CODEC = "int8", "float16"
_MOST_POOLED_BYTES = 4
"""Of a value of a pooled vector, as float32."""
STAGES = ("p2", "p3", "p4", "p5")
"""Levels of images that can be recomputed from pixels, of backbones that have them."""
KNOWN_LATER = {"dataset.annotations_sha256", "backbone.weights_sha256", "backbone.precision"}
"""Fields of an identity that an estimate leaves open: they need annotations, weights or the device."""


MOST_VIEWS = 4096
"""Of a record: every epoch of the longest published trainings has one of its own with a tenth of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """One split, the views of it, a backbone without weights, and the choices about the store."""

    dataset: Dataset
    labels: LabelSample | None
    """A look at the label maps of a segmentation."""
    recipe: ViewRecipe
    card: BackboneCard
    estimate: Estimate
    device: torch.device
    precision: str
    workers: int
    stores: Path

    @property
    def batch_rows(self) -> int:
        """Rows of a forward pass at 512x512."""
        return self.estimate.choices.batch_rows


def prepare(config: PlanConfig) -> Extraction:
    """Opens the data set, chooses views and backbone, and plans the geometry; loads no weights.

    Raises:
        ValueError: an unknown name, a folder that is not the data set, views the split does not have.
        WorkFailed: more records or annotations cannot be used than may be skipped.
        WeightsUnavailable: a backbone that has no published weights, asked for without any.
        OSError: a source could not be read.
    """
    if config.codec is not None:
        check_codec(config.codec)
    MAX_SOURCE.bytes = config.max_source_mb << 20
    chosen = choose(
        config.dataset,
        config.split,
        views=config.views,
        recipe=config.view_recipe,
        crop_size=config.crop_size,
        revision=config.view_revision,
        short_side=config.short_side,
        slide_stride=config.slide_stride,
    )
    _require_few_rows(chosen.views, 1)
    card = chosen_card(
        config.dataset,
        chosen.recipe,
        tagged_model(config),
        config.model_args,
        config.levels,
        config.window_rule,
        default_levels=chosen.levels,
        **pixels_of(config),
    )
    recipe = fitted_to(
        *(chosen.recipe, card.multiple_px, card.model),
        crop_given=config.crop_size is not None,
        interpolation=card.interpolation,
    )
    device = choose_device(config.device)
    stores = stores_folder(config.stores)
    kind = "images" if recipe.frames is None else "videos"
    logger.info("%s: listing records and reading the headers of their %s", config.dataset, kind)
    dataset = open_dataset(
        *(config.dataset, config.data, chosen.split, config.subset), stuff=config.stuff, boxes=config.boxes
    )
    _require_few_rows(chosen.views, len(dataset.records))
    stages = card.family != PLAIN and recipe.frames is None
    require_readable(dataset.task, card.pyramid, STAGES if stages else (), model=card.model)
    choices: dict[str, Any] = {
        "codec": chosen_codec(config.codec, card.pyramid),
        "views": chosen.views,
        "seed": config.seed,
        "pixels": config.pixels == "stored",
        "shard_rows": config.shard_rows,
        "batch_rows": config.batch_size or (GPU_BATCH_ROWS if device.type == "cuda" else 4),
    }
    # First, because what is usable follows from the annotations too.
    weights = digest_of_weights(stores, config.weights)
    begun = begun_estimate(stores, dataset, recipe, card, weights_sha256=weights, **choices)
    labels = sample_labels(dataset)
    require_usable(dataset, labels, config.max_failed, config.max_unusable)
    estimate = begun or estimate_plan(dataset, recipe, card, **choices)
    return Extraction(
        dataset=dataset,
        labels=labels,
        recipe=recipe,
        card=card,
        estimate=measured(estimate, dataset),
        device=device,
        precision=config.precision or (GPU_PRECISION if device.type == "cuda" else "fp32"),
        workers=config.workers or len(os.sched_getaffinity(0)),
        stores=stores,
    )


def _require_few_rows(views: int | None, records: int) -> None:
    """Raises UsageError for more views than a store can hold, before any is drawn."""
    most = min(MOST_VIEWS, max(1, MAX_ROWS // records))
    if views is not None and views > most:
        of = f" of {records:,} records" if records > 1 else ""
        raise UsageError(
            f"--views {views}: expected at most {most:,} views{of}; a store holds up to {MAX_ROWS:,} rows"
        )


def chosen_codec(name: str | None, pyramid: PyramidSpec) -> str:
    """The codec asked for, or the default: int8, of levels of one cell float16.

    Raises UsageError where it would take more bytes than float16: a scale for each value of a pooled vector.
    """
    one_cell = all(level.is_pooled for level in pyramid)
    if name is None:
        return POOLED_CODEC if one_cell else DEFAULT_CODEC
    for level in pyramid if one_cell else ():
        parts = codec(name).parts(level.channels).values()
        per_value = sum(part.width * part.dtype.itemsize for part in parts) / level.channels
        if per_value > _MOST_POOLED_BYTES:
            raise UsageError(
                f"--codec {name}: level {level.name} is one cell, of which {name} stores a scale for every "
                f"value, {per_value:g} bytes each; --codec float16 takes 2"
            )
    return name


def check_codec(name: str) -> None:
    """Raises UsageError for a codec that no store can be made with. Opens and measures nothing."""
    try:
        codec(name)
    except CodecError as error:
        raise UsageError(f"--codec {name}: {error}") from error


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that `folder` stands on, or would stand on."""
    if isinstance(folder, StoreUrl):
        return UNLIMITED_BYTES
    return shutil.disk_usage(existing_folder(folder)).free


def free_inodes(folder: Path) -> int | None:
    """Files and folders that the disk of `folder` still takes; None where its file system has no such
    limit."""
    if isinstance(folder, StoreUrl):
        return None
    status = os.statvfs(existing_folder(folder))
    return status.f_favail if status.f_files else None


def check_space(extraction: Extraction) -> None:
    """Raises SpaceError where a new store does not fit; `check_rest` checks one that was begun.

    Raises UsageError where nothing can be written, unless a complete store may be the one asked for.
    """
    begun = _may_be_begun(extraction)
    if not any(store.complete for store in begun):
        require_writable(extraction.stores, extraction.stores)
    needed, free = extraction.estimate.total_bytes, free_bytes(extraction.stores)
    if needed > free and not begun:
        raise SpaceError(str(extraction.stores), needed, free)


def require_writable(stores: Path, place: Path) -> None:
    """Raises UsageError where `place`, which is or will be a folder below `stores`, cannot be written."""
    if isinstance(place, StoreUrl):  # found by trying, see pipelines.forecast.exclusive_probe
        return
    folder = existing_folder(place)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"--stores {stores}: {folder} cannot be written (no permission, or read-only): "
            f"choose another --stores or fix its permissions"
        )


def _may_be_begun(extraction: Extraction) -> list[FoundStore]:
    """The stores, complete ones included, of the same identity as far as that is known.

    A complete one may be the very store that was asked for, of which nothing is left to write.
    """
    identity = extraction.estimate.plan.identity
    return [
        store
        for store in list_stores(extraction.stores)
        if {field for field, _, _ in diff_identity(identity, store.identity)} <= KNOWN_LATER
    ]


def check_rest(writer: StoreWriter, pending: Sequence[ShardId], total_bytes: int) -> None:
    """Raises SpaceError where what is left of `total_bytes` does not fit."""
    needed, free = rest_bytes(writer, pending, total_bytes), free_bytes(writer.path)
    if needed > free:
        raise SpaceError(str(writer.path), needed, free)


def rest_bytes(writer: StoreWriter, pending: Sequence[ShardId], total_bytes: int) -> int:
    """What pending shards take of `total_bytes`; a row's bytes go by its area."""
    plan = writer.plan
    area = [b.height_px * b.width_px for b in plan.bins]
    left = sum(area[shard.bin] * len(plan.shard_rows(shard)) for shard in pending)
    return total_bytes * left // sum(size * b.rows for size, b in zip(area, plan.bins, strict=True))
