"""Files and inodes of stores of whole data sets, by the geometry of their plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from extract.backbones.registry import backbone_card
from extract.planning.geometry import planned_bin
from stores.format.features import NEW_OPTIONAL, NEW_REQUIRED
from stores.format.packing import targets_with_own_shards
from stores.format.plan import DenseTarget, RaggedTarget, StorePlan, Target
from stores.format.row_table import RowTable
from stores.format.size_estimate import count_files
from stores.pyramid import PyramidSpec
from tests.faults.made_stores import NEW_LAYOUT, MadeRows, extract, small_plan

COCO_IMAGES = 118_287
SIDE_PX = 1024
COCO_TARGETS: tuple[Target, ...] = (
    DenseTarget("listed", "int64", (2,)),
    RaggedTarget("boxes", "float32", (-1, 4), 93 * 16),
    RaggedTarget("classes", "int64", (-1,), 93 * 8),
    RaggedTarget("mask_bits", "uint8", (-1,), 2 << 20),
    RaggedTarget("mask_places", "int64", (-1, 4), 93 * 32),
)
"""As extract.views.instance_targets makes them: up to 93 objects an image, a bit for each pixel of their
boxes."""


def coco_plan(model: str) -> StorePlan:
    """train2017 at 1024 px, one view."""
    pyramid = backbone_card(model).pyramid
    b = planned_bin(
        (SIDE_PX, SIDE_PX),
        COCO_IMAGES,
        pyramid,
        frames=None,
        codec="int8",
        pixels=False,
        shard_rows=None,
        batch_rows=4,
    )
    hw = np.full((COCO_IMAGES, 2), SIDE_PX, np.int32)
    rows = RowTable(
        keys=tuple(f"{row:012}" for row in range(COCO_IMAGES)),
        view=np.zeros(COCO_IMAGES, np.int32),
        params=np.zeros((COCO_IMAGES, 6)),
        bin=np.zeros(COCO_IMAGES, np.int32),
        padded_hw=hw,
        valid_hw=hw,
        original_hw=hw,
    )
    return StorePlan(
        name="coco-train2017-made-int8",
        identity={"dataset": "coco"},
        pyramid=PyramidSpec(tuple(pyramid)),
        codec="int8",
        codec_settings={},
        bins=(b,),
        targets=COCO_TARGETS,
        view_params=tuple(f"p{i}" for i in range(6)),
        rows=rows,
        required_features=NEW_REQUIRED,
        optional_features=NEW_OPTIONAL,
        own_shards=targets_with_own_shards(COCO_TARGETS, (b,), hw),
    )


@pytest.mark.parametrize(
    ("model", "shard_rows", "units", "files", "inodes"),
    [("swinv2-b", 64, 1849, 10_000, 12_000), ("swinv2-g", 16, 7393, 35_000, 50_000)],
)
def test_coco_fits_into_few_files(model: str, shard_rows: int, units: int, files: int, inodes: int) -> None:
    plan = coco_plan(model)
    assert (plan.bins[0].shard_rows, plan.bins[0].shards) == (shard_rows, units)
    counted = count_files(plan)
    assert counted.files <= files
    assert counted.inodes_while_written <= inodes


@pytest.mark.parametrize("layout", ["new", "old"])
def test_the_count_is_that_of_the_disk(layout: str, tmp_path: Path) -> None:
    rows = MadeRows(small_plan(pixels=True, **(NEW_LAYOUT if layout == "new" else {})))
    extract(tmp_path, rows)
    found = list((tmp_path / rows.plan.folder_name).rglob("*"))
    counted = count_files(rows.plan)
    assert counted.files == sum(path.is_file() for path in found)
    assert counted.inodes == len(found) + 1
