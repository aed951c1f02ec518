"""Plans: rows, bins and targets before any pixel is read, and an identity of all that decides the bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import extract.decoding.image_media
import extract.planning.plan
import extract.views.colour
import extract.views.view
from extract.backbones.loading import BackboneCard, backbone_card
from extract.datasets import open_dataset, view_recipe
from extract.planning.plan import build_plan, complete_plan, estimate_plan, store_name
from extract.views.recipes import RandomCrops, ViewRecipe
from extract.views.view import VIEW_PARAMS, View
from stores.format.plan import StorePlan
from stores.format.plan_file import encode_plan
from stores.subsets import key_order
from tests.extract.datasets.made_ade20k import (
    encoded,
    made_image,
    made_labels,
    make_pairs,
    write_folder,
    write_split,
    write_tar,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path, training=10, validation=7)


def plan_of(
    data: Path,
    card: BackboneCard,
    split: str = "training",
    recipe: ViewRecipe | None = None,
    *,
    weights_sha256: str = "0" * 64,
    precision: str = "fp32",
    subset: str | None = None,
    **choices: Any,
) -> StorePlan:
    dataset = open_dataset("ade20k", data, split, subset)
    if recipe is None:
        recipe = (
            view_recipe("ade20k", "ade20k", crop_size=64)
            if dataset.is_training
            else view_recipe("ade20k", "single", short_side=64)
        )
    return build_plan(dataset, recipe, card, weights_sha256=weights_sha256, precision=precision, **choices)


def test_training_rows_are_view_major_in_hash_order_in_one_bin(root: Path, card: BackboneCard) -> None:
    plan = plan_of(root, card, views=3, seed=5)
    dataset = open_dataset("ade20k", root)
    keys = key_order(record.key for record in dataset.records)
    assert plan.rows.keys == tuple(keys) * 3 and keys != sorted(keys)
    assert plan.rows.view.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert [b.name for b in plan.bins] == ["64x64"]
    assert [target.to_json()["name"] for target in plan.targets] == ["labels"]
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    recipe = view_recipe("ade20k", "ade20k", crop_size=64)
    for row, key in enumerate(plan.rows.keys):
        index, view = index_of[key], View.from_params(plan.rows.params[row])
        record, labels = dataset.records[index], dataset.read_truth(index)
        assert view == recipe.view("ade20k", record, int(plan.rows.view[row]), 5, labels)
        assert plan.rows.original_hw[row].tolist() == list(record.original_hw)
        assert plan.rows.valid_hw[row].tolist() == list(view.valid_hw)
    assert len(np.unique(plan.rows.params, axis=0)) == 30


def test_test_rows_are_in_key_order_in_a_bin_for_each_padded_size(root: Path, card: BackboneCard) -> None:
    plan = plan_of(root, card, "validation", view_recipe("ade20k", "ms-flip", short_side=64), codec="float16")
    dataset = open_dataset("ade20k", root, "validation")
    keys = tuple(record.key for record in dataset.records)
    assert plan.rows.keys == keys * 12 and plan.name == "ade20k-validation-swinv2-nano-float16"
    assert len(plan.bins) > 5 and sum(b.rows for b in plan.bins) == 84
    sizes = [(b.height_px, b.width_px) for b in plan.bins]
    assert sizes == sorted(sizes) and all(side % 32 == 0 for size in sizes for side in size)
    labels, original = plan.targets
    assert (labels.name, labels.shape, original.name) == ("labels", ("y", "x"), "original_labels")
    assert original.to_json()["cap_bytes"] == max(h * w for h, w in (r.original_hw for r in dataset.records))


def test_batches_lie_within_shards_and_shrink_with_the_images(root: Path, card: BackboneCard) -> None:
    plan = plan_of(root, card, "validation", view_recipe("ade20k", "ms-flip"), batch_rows=16, shard_rows=8)
    for b in plan.bins:
        assert b.batch_rows is not None and b.batch_rows <= min(8, b.rows)
        assert b.batch_rows == 1 or b.batch_rows * b.height_px * b.width_px <= 16 * 512 * 512
    assert {b.batch_rows for b in plan.bins} != {1}


def altered(root: Path, change: Callable[[Path], None]) -> Path:
    copy = root.parent / "altered" / root.name
    shutil.copytree(root, copy)
    change(copy)
    return copy


def one_label(root: Path) -> None:
    path = root / "annotations" / "training" / "ADE_train_00000002.png"
    path.write_bytes(encoded(made_labels(77, (40, 72)), "PNG"))


def one_byte(root: Path) -> None:
    path = root / "images" / "training" / "ADE_train_00000002.jpg"
    path.write_bytes(path.read_bytes() + b"\0")


def one_less(root: Path) -> None:
    (root / "images" / "training" / "ADE_train_00000002.jpg").unlink()


def one_more(root: Path) -> None:
    write_split(root, "training", {"ADE_train_00000099": make_pairs(1, "training")["ADE_train_00000001"]})


def renamed(root: Path) -> None:
    for folder, ending in (("images", "jpg"), ("annotations", "png")):
        path = root / folder / "training" / f"ADE_train_00000002.{ending}"
        path.rename(path.with_stem("ADE_train_00000098"))


@pytest.mark.parametrize("change", [one_label, one_byte, one_less, one_more, renamed])
def test_another_data_set_is_another_store(
    root: Path, card: BackboneCard, change: Callable[[Path], None]
) -> None:
    assert plan_of(altered(root, change), card).identity_digest != plan_of(root, card).identity_digest


@pytest.mark.parametrize(
    "choices",
    [
        {"seed": 1},
        {"views": 2},
        {"codec": "float16"},
        {"levels": ("p4", "p5")},
        {"pixels": True},
        {"precision": "fp16"},
        {"weights_sha256": "0" * 63 + "1"},
        {"subset": "50%"},
        {"split": "validation"},
        {"recipe": view_recipe("ade20k", "single", short_side=64)},
        {"recipe": view_recipe("ade20k", "ade20k", crop_size=96)},
        {"recipe": view_recipe("ade20k", "ade20k", crop_size=64, short_side=65)},
        {"recipe": RandomCrops(name="ade20k", crop_px=64, ratio_range=(0.5, 2.1))},
        {"recipe": RandomCrops(name="ade20k", crop_px=64, cat_max_ratio=0.8)},
        {"recipe": RandomCrops(name="ade20k", crop_px=64, tries=9)},
        {"recipe": RandomCrops(name="ade20k", crop_px=64, flip=0.4)},
    ],
    ids=str,
)
def test_every_choice_that_changes_bytes_changes_the_identity(
    root: Path, card: BackboneCard, choices: dict[str, Any]
) -> None:
    assert plan_of(root, card, **choices).identity_digest != plan_of(root, card).identity_digest


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (extract.views.colour, "BRIGHTNESS_DELTA", 33),
        (extract.views.colour, "CONTRAST_RANGE", (0.5, 1.6)),
        (extract.views.colour, "SATURATION_RANGE", (0.4, 1.5)),
        (extract.views.colour, "HUE_DELTA", 17),
        (extract.views.colour, "PROBABILITY", 0.6),
        (extract.views.view, "MULTIPLE_PX", 64),
        (extract.views.view, "VIEWS_REVISION", 3),
        (extract.decoding.image_media, "DECODER", "another"),
        (extract.decoding.image_media, "LIMIT_PX", 1 << 20),
        (extract.planning.plan, "FORMAT_VERSION", 2),
    ],
)
def test_every_constant_of_the_code_stands_in_the_identity(
    root: Path, card: BackboneCard, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any
) -> None:
    before = plan_of(root, card).identity_digest
    monkeypatch.setattr(module, name, value)
    assert plan_of(root, card).identity_digest != before


def test_another_backbone_is_another_store(root: Path, card: BackboneCard) -> None:
    others = [
        backbone_card("swinv2-nano", {"window_size": [8, 8, 4, 4]}),
        backbone_card("swinv2-nano", {"embed_dim": 32, "num_heads": [1, 2, 4, 8]}),
        replace(card, mean=(0.5, 0.5, 0.5)),
        replace(card, std=(0.5, 0.5, 0.5)),
        replace(card, timm_id="swinv2_small_window8_256.ms_in1k"),
    ]
    digests = {plan_of(root, other).identity_digest for other in [card, *others]}
    assert len(digests) == 6


def test_what_does_not_change_bytes_does_not_change_the_identity(
    root: Path, card: BackboneCard, tmp_path: Path
) -> None:
    expected = plan_of(root, card, "validation")
    members = [
        member
        for key, (jpg, png) in sorted(make_pairs(7, "validation").items(), reverse=True)
        for member in ((f"{key}.png", png), (f"{key}.jpg", jpg))
    ]
    for plan in (
        plan_of(shutil.copytree(root, tmp_path / "moved" / root.name), card, "validation"),
        plan_of(root.parent, card, "validation"),
        plan_of(write_tar(tmp_path / "any.tar", members), card, "validation"),
        plan_of(root, card, "validation", batch_rows=1, shard_rows=1, threads=1),
        plan_of(root, card, "validation", seed=9),  # test views have no random choice
        plan_of(root, card, "validation", levels=("p5", "p4", "p3", "p2")),
    ):
        assert plan.identity_digest == expected.identity_digest
        assert plan.folder_name == expected.folder_name
        assert all(np.array_equal(a, b) for a, b in zip(tables(plan), tables(expected), strict=True))


def tables(plan: StorePlan) -> list[np.ndarray]:
    return list(plan.rows.to_tables().values())


def test_an_estimate_reads_no_annotation_and_plans_the_same_geometry(root: Path, card: BackboneCard) -> None:
    plan = plan_of(root, card, views=2)
    for path in (root / "annotations" / "training").iterdir():
        path.write_bytes(b"")
    dataset = open_dataset("ade20k", root)
    estimate = estimate_plan(dataset, view_recipe("ade20k", "ade20k", crop_size=64), card, views=2)
    assert estimate.plan.bins == plan.bins
    # plan.json counts as it is written: digests that are not read yet have fewer letters.
    assert abs(estimate.total_bytes - plan.total_bytes) < 500
    crop = [VIEW_PARAMS.index("crop_y"), VIEW_PARAMS.index("crop_x")]
    kept = [column for column in range(len(VIEW_PARAMS)) if column not in crop]
    assert np.array_equal(estimate.plan.rows.params[:, kept], plan.rows.params[:, kept])
    row_bytes = {"p2": 24 * 256, "p3": 48 * 64, "p4": 96 * 16, "p5": 192 * 4}
    for level, q_bytes in row_bytes.items():
        channels = card.pyramid[level].channels
        assert abs(estimate.bytes_by_level[level] - 20 * (q_bytes + 4 * channels)) < 2000


@pytest.mark.parametrize(
    ("split", "recipe", "views"), [("training", "ade20k", 2), ("validation", "ms-flip", None)]
)
def test_an_estimate_becomes_the_plan(
    root: Path, card: BackboneCard, split: str, recipe: str, views: int | None
) -> None:
    dataset, chosen = open_dataset("ade20k", root, split), view_recipe("ade20k", recipe, short_side=64)
    estimate = estimate_plan(dataset, chosen, card, views=views, seed=3)
    read = {"weights_sha256": "a" * 64, "precision": "fp32"}
    plan = complete_plan(estimate, dataset, chosen, card, **read)
    expected = build_plan(dataset, chosen, card, **read, views=views, seed=3)
    assert encode_plan(plan) == encode_plan(expected)
    assert all(np.array_equal(a, b) for a, b in zip(tables(plan), tables(expected), strict=True))
    assert plan.bins is estimate.plan.bins
    assert (plan.rows is estimate.plan.rows) == (not chosen.looks_at_truth), "rows are planned once"
    assert "not read" in str(estimate.plan.identity) and "not read" not in str(plan.identity)


def test_a_subset_needs_less_space_for_the_same_geometry(root: Path, card: BackboneCard) -> None:
    recipe = view_recipe("ade20k", "ade20k", crop_size=64)
    full, half = (estimate_plan(open_dataset("ade20k", root, subset=s), recipe, card) for s in (None, "50%"))
    assert half.plan.bins == full.plan.bins and half.plan.rows.keys == full.plan.rows.keys
    assert half.total_bytes < full.total_bytes - 0.4 * sum(full.bytes_by_level.values())


def test_a_record_whose_header_is_broken_keeps_its_place(root: Path, card: BackboneCard) -> None:
    key = "ADE_val_00000003"
    write_split(root, "validation", {key: (b"not an image", make_pairs(3, "validation")[key][1])})
    write_split(root, "validation", {"ADE_val_00000004": (b"", b"")})
    plan = plan_of(root, card, "validation")
    assert len(plan.rows) == 7
    sizes = dict(zip(plan.rows.keys, plan.rows.original_hw.tolist(), strict=True))
    assert sizes[key] == list(made_labels(0, (64, 64)).shape) and sizes["ADE_val_00000004"] == [1, 1]


def test_plans_of_full_data_sets_stay_small(card: BackboneCard, tmp_path: Path) -> None:
    write_split(tmp_path, "training", {f"ADE_train_{i:08d}": (b"", b"") for i in range(2000)})
    image = encoded(made_image(0, (64, 64)), "JPEG")
    write_split(tmp_path, "training", {"ADE_train_00000001": (image, b"")})
    plan = plan_of(tmp_path, card, recipe=view_recipe("ade20k", "ms-flip", short_side=64))
    assert len(encode_plan(plan)) < 8000  # rows stand in tables, the identity holds digests


def test_planning_reports_its_progress(root: Path, card: BackboneCard) -> None:
    seen: list[tuple[int, int]] = []
    plan_of(root, card, on_record=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 10) for n in range(1, 11)]


def test_wrong_choices_are_refused(root: Path, card: BackboneCard) -> None:
    with pytest.raises(ValueError, match="has 1 views"):
        plan_of(root, card, "validation", views=4)
    with pytest.raises(ValueError, match="0 views"):
        plan_of(root, card, views=0)
    with pytest.raises(ValueError, match="no level p7; swinv2-nano has p2, p3, p4, p5"):
        plan_of(root, card, levels=("p7",))
    with pytest.raises(ValueError, match="int8"):
        plan_of(root, card, codec="jpeg")


def test_names_of_stores_can_be_read() -> None:
    assert store_name("ade20k", "training", "timm:SwinV2 x", "int8") == "ade20k-training-timm-swinv2-x-int8"
