"""Small stores of clips made without a backbone or a video: features that partly depend on frame order.

Class 2 k + 1 holds what class 2 k holds, with time reversed: the pair follows from the mean, the member from
the order alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from stores.codecs import codec
from stores.format.pixel_differences import PIXEL_DIFFERENCES
from stores.format.plan import Bin, DenseTarget, StorePlan
from stores.format.row_table import UNDECODABLE, RowTable
from stores.pyramid import Level, PyramidSpec
from stores.writing.writer import StoreWriter

CLASSES = 4
CLASS_NAMES = ("waking", "falling asleep", "filling", "emptying")
FRAMES, SIDE_PX = 6, 64
TARGETS = {"train": ("label",), "val": ("label", "original_label")}
PYRAMID = PyramidSpec((Level(name="p5n", stride_px=32, channels=32, stage=4),))


def make_clip_store(
    root: Path,
    *,
    split: str = "train",
    records: int = 16,
    views: int = 2,
    codec_name: str = "int8",
    weights: str = "ab" * 32,
    skipped: frozenset[str] = frozenset(),
    pixels: bool = False,
) -> Path:
    """Writes a store of one bin and returns its folder; `skipped` are keys of records that were broken."""
    plan = _plan(split, records, views, codec_name, weights, pixels)
    writer = StoreWriter.open_or_create(root, plan)
    for shard in writer.pending():
        shard_writer = writer.open_shard(shard)
        for local in shard_writer.rows:
            row = plan.global_row(shard.bin, local)
            key, source = plan.rows.keys[row], hashlib.sha256(plan.rows.keys[row].encode()).digest()
            if key in skipped:
                shard_writer.skip(local, UNDECODABLE, "no video", source_sha256=source)
                continue
            label, x_TyxC = made_clip(key, int(plan.rows.view[row]))
            encoded = {"p5n": codec(codec_name).encode(x_TyxC)}
            targets = {target.name: np.array(label, np.int64) for target in plan.targets}
            black = np.zeros((FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8) if pixels else None
            shard_writer.put(local, encoded, targets, pixels=black, source_sha256=source)
        shard_writer.commit({"numpy": "2"}, {})
    writer.finish()
    return writer.path


def made_clip(key: str, view: int) -> tuple[int, np.ndarray]:
    """The label of a record and features float32 (T, y, x, C) of one view: a ramp in the pair's channels."""
    label = int(key.rsplit("-", 1)[1]) % CLASSES
    pair, is_reversed = divmod(label, 2)
    digest = hashlib.sha256(f"{key}/{view}".encode()).digest()
    x_TyxC = 0.3 * np.random.default_rng(list(digest)).standard_normal((FRAMES, 2, 2, 32), np.float32)
    ramp_T = np.linspace(-2, 2, FRAMES, dtype=np.float32)
    x_TyxC[..., 4 * pair : 4 * pair + 4] += (ramp_T[::-1] if is_reversed else ramp_T)[:, None, None, None]
    x_TyxC[..., 16 + pair] += 2
    return label, x_TyxC


def _plan(split: str, records: int, views: int, codec_name: str, weights: str, pixels: bool) -> StorePlan:
    rows = records * views
    view, position = np.divmod(np.arange(rows, dtype=np.int32), np.int32(records))
    size = np.full((rows, 2), SIDE_PX)
    return StorePlan(
        name=f"k400-{split}-made-{codec_name}",
        identity={
            "dataset": {
                "name": "k400",
                "split": split,
                "task": "video",
                "num_classes": CLASSES,
                "class_names": list(CLASS_NAMES),
                "records": {"count": records},
            },
            "views": {
                "recipe": "k400" if split == "train" else {1: "single", 12: "4x3"}[views],
                "count": views,
                "scale_px": [SIDE_PX, SIDE_PX],
                "seed": 0,
            },
            "backbone": {"model": "made", "weights_sha256": weights, "precision": "fp32"},
            "levels": ["p5n"],
            "codec": {"name": codec_name, "settings": {}},
            **({"pixels": "differences"} if pixels else {}),
        },
        pyramid=PYRAMID,
        codec=codec_name,
        codec_settings={},
        bins=(Bin(height_px=SIDE_PX, width_px=SIDE_PX, rows=rows, shard_rows=8),),
        targets=tuple(DenseTarget(name, "int64", ()) for name in TARGETS[split]),
        view_params=("flip",),
        rows=RowTable(
            keys=tuple(f"{split}-{record}" for record in position),
            view=view,
            params=np.zeros((rows, 1)),
            bin=np.zeros(rows, np.int32),
            padded_hw=size,
            valid_hw=size,
            original_hw=size + 9,
        ),
        frames=FRAMES,
        pixels=pixels,
        required_features=(PIXEL_DIFFERENCES,) if pixels else (),
    )
