"""Bytes, files, requests and GPU hours of the papers' data sets for SwinV2-T to G, by the planner's own code.

    python -m benchmarks.cluster.sizes [--codec int8] [--rate TFLOPS]

No data set is needed: rows are as many as the published counts, of the size of the data set's training views,
with its default levels. Targets are left out. GPU hours are the multiply-adds of the forward pass, counted on
the meta device, at the rate that `--rate` gives in 10^12 multiply-adds a second; the default is that of
SwinV2-G at 640 px on an H200 (docs/performance.md), whatever the model: smaller ones reach less.
Requests are those of writing to an object store (three for a file of a shard: put, copy, delete; two for a
receipt) and of one epoch in random order (one for each row and level).
"""

from __future__ import annotations

import argparse
import dataclasses

from benchmarks.stores.one_bin import rows_of_one_bin
from extract.datasets import choose
from extract.planning.backbone_costs import backbone_costs
from pipelines.catalog.choose_backbone import chosen_card
from stores.format.array_spec import ArraySpec
from stores.format.arrays import own_arrays
from stores.format.features import NEW_OPTIONAL, NEW_REQUIRED
from stores.format.plan import Bin, StorePlan, feature_row_bytes, shard_rows_for
from stores.format.size_estimate import count_files, estimated_bytes

RECORDS = {
    "COCO": ("coco", 118_287),
    "ADE20K": ("ade20k", 20_210),
    "K400": ("k400", 241_255),
    "ImageNet-22K": ("in1k", 14_197_122),
}
MODELS = ("swinv2-t", "swinv2-s", "swinv2-b", "swinv2-l", "swinv2-g")
PARTS = {"ImageNet-22K": 64}
"""The plan of so large a set is made for a part of it, and bytes and units are multiplied."""
PARAMS = 14


def plan_of(rows: int, px: int, model: str, dataset: str, codec: str, whole: int) -> StorePlan:
    """A plan of `rows` rows in shards as a set of `whole` rows has them."""
    chosen = choose(dataset, None, views=1, recipe=None, crop_size=None, revision=None, short_side=None)
    card = chosen_card(dataset, chosen.recipe, model, {}, None, None, default_levels=chosen.levels)
    frames = chosen.recipe.frames
    largest = max(feature_row_bytes(card.pyramid, codec, px, px, frames).values())
    one = Bin(height_px=px, width_px=px, rows=rows, shard_rows=shard_rows_for(largest, whole), batch_rows=8)
    plan = StorePlan(
        name=f"{dataset}-{model}",
        identity={"dataset": dataset, "model": model},
        pyramid=card.pyramid,
        codec=codec,
        codec_settings={},
        bins=(one,),
        targets=(),
        view_params=tuple(f"p{number}" for number in range(PARAMS)),
        rows=rows_of_one_bin(rows, px, params=PARAMS, digits=12),
        frames=frames,
        required_features=NEW_REQUIRED,
        optional_features=NEW_OPTIONAL,
    )
    return dataclasses.replace(plan, backbone_costs=backbone_costs(card, plan.bins, frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--codec", default="int8")
    parser.add_argument("--rate", type=float, default=None)
    given = parser.parse_args()
    rate = given.rate or _rate_of_g()
    print(f"GPU hours at {rate:.0f} x 10^12 multiply-adds a second")
    print("| data set | model | px | S | units | TB | files | put requests | requests an epoch | GPU hours |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for title, (dataset, records) in RECORDS.items():
        recipe = choose(
            dataset, None, views=1, recipe=None, crop_size=None, revision=None, short_side=None
        ).recipe
        for model in MODELS:
            part = PARTS.get(title, 1)
            codec = (
                "float16" if dataset == "in1k" and given.codec == "int8" else given.codec
            )  # pooled vectors
            plan = plan_of(records // part, recipe.crop_px, model, dataset, codec, records)
            units = plan.bins[0].shards * part
            own: list[ArraySpec] = list(own_arrays(plan, 0).values())
            macs = plan.backbone_costs["multiply_adds"] * records
            print(
                f"| {title} | {model} | {recipe.crop_px} | {plan.bins[0].shard_rows} | {units:,} "
                f"| {estimated_bytes(plan) * part / 1e12:.3g} | {count_files(plan).files * part:,} "
                f"| {units * (3 * (len(own) + 1) + 2):,} | {records * len(plan.pyramid.names):,} "
                f"| {macs / rate / 1e12 / 3600:.3g} |",
                flush=True,
            )


def _rate_of_g() -> float:
    """10^12 multiply-adds a second of SwinV2-G at 640 px: 48.8 ms an image."""
    plan = plan_of(8, 640, "swinv2-g", "ade20k", "int8", 8)
    return float(plan.backbone_costs["multiply_adds"]) / 0.0488 / 1e12


if __name__ == "__main__":
    main()
