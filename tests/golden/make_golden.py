"""Made the golden stores beside this file, once. Tests read them and never run this.

A release must read what earlier releases wrote, so a golden store is never made again: a change of the format
raises its version and adds stores of that version here. Beside each store stands an .npz of every array, by
its path in the store, computed without the writer.

    python -m tests.golden.make_golden NAME ...
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from stores.format.arrays import sharded_arrays, state_tables
from stores.format.features import (
    BLAKE3,
    CHUNK_DIGESTS,
    CONSOLIDATED,
    DOTTED_LEVEL_NAMES,
    FLAT_KEYS,
    NAMES,
    PACKED,
    WIDE_SHARDS,
)
from stores.format.plan import Bin, DenseTarget, RaggedTarget
from stores.format.pixel_differences import PIXEL_DIFFERENCES, differences
from stores.pyramid import ONE_CELL_PX, Level
from tests.faults.made_stores import (
    LABELS,
    ORIGINAL_LABELS,
    P4,
    P5,
    Array,
    MadeRows,
    extract,
    fitted,
    small_plan,
)

FOLDER = Path(__file__).parent
TWO_BINS = (
    Bin(height_px=32, width_px=64, rows=3, shard_rows=2, batch_rows=2),
    Bin(height_px=64, width_px=32, rows=3, shard_rows=4, batch_rows=2),
)
WIDE = Level(name="p4", stride_px=16, channels=37, stage=3)
"""With int4 two blocks of channels, and a last code by itself."""
BLOCK = Level(name="s4.b1", stride_px=32, channels=3, stage=4)
VECTOR = Level(name="avg", stride_px=ONE_CELL_PX, channels=5, stage=4)
"""One cell an image, whatever its size."""
CLASS = DenseTarget("label", "int64", ())
BOXES = RaggedTarget("boxes", "float32", (-1, 4), 64)


def golden_stores() -> dict[str, MadeRows]:
    images = {"bins": TWO_BINS, "levels": (P4, P5)}
    targets = (LABELS, ORIGINAL_LABELS)
    clips = small_plan(
        bins=(Bin(height_px=32, width_px=32, rows=3, shard_rows=2),),
        levels=(P5,),
        targets=(),
        frames=2,
        pixels=True,
    )
    return {
        "images-int8": MadeRows(small_plan(**images, targets=(*targets, BOXES), pixels=True)),
        "images-float16": MadeRows(small_plan("float16", **images, targets=targets)),
        "clips-int8": MadeRows(clips, skipped=frozenset({(0, 1)})),
        "pixels-float16": MadeRows(
            small_plan(
                "float16", bins=TWO_BINS, targets=(), pixels=True, required_features=(PIXEL_DIFFERENCES,)
            )
        ),
        "blocks-float16": MadeRows(
            small_plan(
                "float16",
                bins=TWO_BINS,
                levels=(BLOCK, P5, VECTOR),
                targets=(),
                required_features=(DOTTED_LEVEL_NAMES,),
            )
        ),
        "pooled-float16": MadeRows(
            small_plan(
                "float16",
                bins=(Bin(height_px=32, width_px=32, rows=1030, shard_rows=2048),),
                levels=(VECTOR,),
                targets=(CLASS,),
                required_features=(WIDE_SHARDS,),
            ),
            skipped=frozenset({(0, 1029)}),
        ),
        "images-int4": MadeRows(small_plan("int4", bins=TWO_BINS, levels=(WIDE, P5), targets=targets)),
        "images-q2": MadeRows(
            fitted(
                small_plan(
                    "q2",
                    bins=TWO_BINS,
                    levels=(WIDE, P5),
                    targets=targets,
                    required_features=(CHUNK_DIGESTS, FLAT_KEYS, PACKED),
                    optional_features=(NAMES, CONSOLIDATED),
                )
            )
        ),
        "layout-names": _one_feature(optional_features=(NAMES,)),
        "layout-consolidated": _one_feature(optional_features=(CONSOLIDATED,)),
        "layout-chunk-digests": _one_feature(required_features=(CHUNK_DIGESTS,)),
        "layout-blake3": _one_feature(required_features=(BLAKE3, CHUNK_DIGESTS, PACKED)),
        "layout-flat-keys": _one_feature(required_features=(FLAT_KEYS,)),
        "layout-packed": _one_feature(required_features=(PACKED,)),
        "layout-all": MadeRows(
            small_plan(
                bins=TWO_BINS,
                levels=(P5,),
                targets=(*targets, BOXES),
                pixels=True,
                required_features=(CHUNK_DIGESTS, FLAT_KEYS, PACKED, PIXEL_DIFFERENCES),
                optional_features=(NAMES, CONSOLIDATED),
                own_shards=("labels",),
                data_licence="CC BY 4.0",
            )
        ),
    }


def _one_feature(**features: Any) -> MadeRows:
    """A store of few files with one feature of the layout alone."""
    one_bin = (Bin(height_px=32, width_px=32, rows=3, shard_rows=2, batch_rows=2),)
    plan = small_plan(bins=one_bin, levels=(P5,), targets=(LABELS, ORIGINAL_LABELS), **features)
    return MadeRows(plan, skipped=frozenset({(0, 1)}))


def expected(rows: MadeRows) -> dict[str, Array]:
    """Every array of the store by its path, holes holding the fill value."""
    plan, found = rows.plan, {}
    for index in range(len(plan.bins)):
        for name, spec in sharded_arrays(plan, index).items():
            found[spec.path] = whole = np.full(spec.shape, spec.fill, spec.dtype)
            for (bin_index, row), copy in rows.copies().items():
                if bin_index == index:
                    array = copy[name]
                    if name == "pixels" and plan.pixel_differences:
                        array = differences(array)
                    whole[row] = padded(array, spec.row_bytes).view(spec.dtype).reshape(spec.row_shape)
    for level, tables in state_tables(plan).items():
        found |= {spec.path: plan.codec_state[level][name] for name, spec in tables.items()}
    for name, table in plan.rows.to_tables().items():
        found[f"rows/{name}"] = table
    return found


def padded(array: Array, row_bytes: int) -> Array:
    """The bytes of an array, and zeros up to the cap of a ragged one."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return np.concatenate([flat, np.zeros(row_bytes - len(flat), np.uint8)])


def make(name: str) -> None:
    rows, path = golden_stores()[name], FOLDER / name
    if path.exists():
        raise SystemExit(f"{path} exists: golden stores are never made again")
    extract(FOLDER / "made", rows)
    (FOLDER / "made" / rows.plan.folder_name).rename(path)
    (FOLDER / "made").rmdir()
    np.savez_compressed(FOLDER / f"{name}.npz", **expected(rows))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        make(each)
