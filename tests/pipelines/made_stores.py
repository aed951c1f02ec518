"""Small stores made without a backbone: features that encode the label of each cell, with noise."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stores.codecs import codec
from stores.codecs.contract import FittedCodec
from stores.format.plan import Bin, DenseTarget, RaggedTarget, StorePlan
from stores.format.row_table import UNDECODABLE, RowTable
from stores.pyramid import Level, PyramidSpec
from stores.writing.writer import StoreWriter

CLASS_NAMES = ["wall", "building", "sky", "floor", "tree"]
CLASSES = len(CLASS_NAMES)
SIDE_PX = 64
VIEW_RECIPES = {
    ("training", False): "ade20k",
    ("training", True): "ade20k",
    ("validation", False): "single",
    ("validation", True): "ms-flip",
}
PYRAMID = PyramidSpec(
    tuple(
        Level(name=f"p{stage + 1}", stride_px=2 ** (stage + 1), channels=8 * stage, stage=stage)
        for stage in (1, 2, 3, 4)
    )
)


def make_store(
    root: Path,
    *,
    split: str = "training",
    records: int = 12,
    views: int = 2,
    codec_name: str = "float16",
    weights: str = "ab" * 32,
    seed: int = 0,
    levels: tuple[str, ...] = PYRAMID.names,
    skipped: frozenset[tuple[str, int]] = frozenset(),
    key: str = "{split}-{record}",
    errors: bool = False,
) -> Path:
    """Writes a training store of one bin, or a test store of two bins, and returns its folder; `errors`: with
    the codec's error figures in its receipts."""
    is_test = split == "validation"
    plan = _plan(split, records, views, codec_name, weights, seed, PYRAMID.select(levels), is_test)
    keys = [key.format(split=split, record=name.rpartition("-")[2]) for name in plan.rows.keys]
    plan = replace(plan, rows=replace(plan.rows, keys=tuple(keys)))
    made = codec(codec_name)
    if isinstance(made, FittedCodec):
        rows = [made_row(plan, row, seed)[1] for row in range(min(4, len(plan.rows)))]
        sample = {level: np.stack([features[level] for features in rows]) for level in levels}
        plan = plan.with_state({level: made.fit(x) for level, x in sample.items()})
    writer = StoreWriter.open_or_create(root, plan)
    plan = writer.plan
    for shard in writer.pending():
        shard_writer, figures = writer.open_shard(shard), {}
        for local in shard_writer.rows:
            row = plan.global_row(shard.bin, local)
            key, view = plan.rows.keys[row], int(plan.rows.view[row])
            source = hashlib.sha256(key.encode()).digest()
            if (key, view) in skipped:
                shard_writer.skip(local, UNDECODABLE, "not an image", source_sha256=source)
                continue
            original, features = made_row(plan, row, seed)
            if errors:
                figures = {level: plan.level_codec(level).error_figures(x) for level, x in features.items()}
            encoded = {level: plan.level_codec(level).encode(x) for level, x in features.items()}
            padded = np.full(plan.rows.padded_hw[row], 255, np.uint8)
            height, width = plan.rows.valid_hw[row]
            padded[:height, :width] = _resized(original, (height, width), _is_flipped(plan, row))
            targets = {"original_labels": original} if is_test else {"labels": padded}
            shard_writer.put(local, encoded, targets, source_sha256=source)
        shard_writer.commit({"numpy": "2"}, figures)
    writer.finish()
    return writer.path


def made_row(plan: StorePlan, row: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The label map of a row's record, and features (y, x, C) of the row's view of it."""
    key, view = plan.rows.keys[row], int(plan.rows.view[row])
    original_hw = plan.rows.original_hw[row]
    labels = _generator(seed, key, "labels").integers(0, CLASSES, (2, 2)).astype(np.uint8)
    original = _resized(labels, (int(original_hw[0]), int(original_hw[1])), False)
    valid = tuple(int(size) for size in plan.rows.valid_hw[row])
    features = {}
    for level in plan.pyramid:
        cells = [level.cells(int(size)) for size in plan.rows.padded_hw[row]]
        noise = _generator(seed, key, f"{view}{level.name}").standard_normal(
            (*cells, level.channels), np.float32
        )
        seen = _resized(original, (level.cells(valid[0]), level.cells(valid[1])), _is_flipped(plan, row))
        noise[: seen.shape[0], : seen.shape[1], :CLASSES] += 3 * np.eye(CLASSES, dtype=np.float32)[seen]
        features[level.name] = noise
    return original, features


def _generator(seed: int, *key: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(repr((seed, *key)).encode()).digest()))


def _resized(labels: np.ndarray, size: tuple[int, int], is_flipped: bool) -> np.ndarray:
    rows = np.arange(size[0]) * labels.shape[0] // size[0]
    columns = np.arange(size[1]) * labels.shape[1] // size[1]
    resized = labels[rows][:, columns]
    return resized[:, ::-1] if is_flipped else resized


def _is_flipped(plan: StorePlan, row: int) -> bool:
    return bool(plan.rows.params[row, plan.view_params.index("flip")])


def _plan(
    split: str,
    records: int,
    views: int,
    codec_name: str,
    weights: str,
    seed: int,
    pyramid: PyramidSpec,
    is_test: bool,
) -> StorePlan:
    rows = records * views
    view, position = np.divmod(np.arange(rows, dtype=np.int32), np.int32(records))
    bin_of = position % 2 if is_test else np.zeros(rows, np.int32)
    widths = np.array([SIDE_PX, 96])[bin_of]
    padded = np.stack([np.full(rows, SIDE_PX), widths], 1)
    valid = padded - [[3, 9]] if is_test else padded
    table = RowTable(
        keys=tuple(f"{split}-{record}" for record in position),
        view=view,
        params=np.stack([view % 2], 1).astype(np.float64),
        bin=bin_of.astype(np.int32),
        padded_hw=padded,
        valid_hw=valid,
        original_hw=valid * 2 - 1 if is_test else valid,
    )
    sizes = [SIDE_PX, 96] if is_test else [SIDE_PX]
    original: Any = RaggedTarget("original_labels", "uint8", ("original_y", "original_x"), 1 << 16)
    return StorePlan(
        name=f"ade20k-{split}-made-{codec_name}",
        identity=_identity(split, records, views, codec_name, weights, seed, pyramid),
        pyramid=pyramid,
        codec=codec_name,
        codec_settings={},
        bins=tuple(
            Bin(height_px=SIDE_PX, width_px=width, rows=int((widths == width).sum()), shard_rows=4)
            for width in sizes
        ),
        targets=(original,) if is_test else (DenseTarget("labels", "uint8", ("y", "x")),),
        view_params=("flip",),
        rows=table,
    )


def _identity(
    split: str, records: int, views: int, codec_name: str, weights: str, seed: int, pyramid: PyramidSpec
) -> dict[str, Any]:
    return {
        "dataset": {
            "name": "ade20k",
            "split": split,
            "task": "segmentation",
            "num_classes": CLASSES,
            "class_names": CLASS_NAMES,
            "records": {"count": records},
        },
        "views": {"recipe": VIEW_RECIPES[split, views > 1], "count": views, "seed": seed},
        "backbone": {"model": "made", "weights_sha256": weights, "precision": "fp32"},
        "levels": list(pyramid.names),
        "codec": {"name": codec_name, "settings": {}},
    }
