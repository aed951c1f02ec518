"""Stores that were begun: a resume takes their rows while the sources stand as they stood, and no longer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import extract.datasets.layouts.instance_data as instance_data
from benchmarks.planning.made_coco import write as write_coco
from extract.backbones.loading import BackboneCard, backbone_card
from extract.datasets import Dataset, dataset_module, open_dataset, view_recipe
from extract.datasets.layouts.label_maps import LabelMaps
from extract.extractor.row_loader import RowLoader, SourceDigests
from extract.planning.begun import SourceRecord, begun_estimate, record_sources
from extract.planning.plan import build_plan, complete_plan, estimate_plan
from extract.views.detection_recipes import LargeScaleJitter
from extract.views.recipes import RandomCrops
from stores.errors import IdentityError
from stores.format.plan_file import encode_plan
from stores.writing.writer import StoreWriter

CHOICES: dict[str, Any] = {"views": 2, "seed": 3}
READ = {"weights_sha256": "a" * 64, "precision": "fp32"}


@pytest.fixture(scope="module")
def card() -> BackboneCard:
    return backbone_card("swinv2-nano")


class Begun:
    """A store of a made data set that was begun, and what a resume counts."""

    def __init__(self, name: str, root: Path, card: BackboneCard) -> None:
        self.name, self.data, self.stores, self.card = name, root / "data", root / "stores", card
        if name == "coco":
            write_coco(self.data, images=30)
        else:
            dataset_module(name).write_sample(self.data, 12, np.random.default_rng(0))
        self.recipe = view_recipe(name, name, crop_size=64)
        dataset = self.opened()
        self.plan = build_plan(dataset, self.recipe, card, **READ, **CHOICES)
        self.path = StoreWriter.open_or_create(self.stores, self.plan).path
        record_sources(self.path, dataset)

    def opened(self) -> Dataset:
        return open_dataset(self.name, self.data)

    def resumed(self, **changed: Any) -> Any:
        return begun_estimate(self.stores, self.opened(), self.recipe, self.card, **{**CHOICES, **changed})

    def annotation_file(self) -> Path:
        folder = self.data / "annotations"
        return next(path for path in sorted(folder.rglob("*")) if path.is_file() and "val" not in str(path))


@pytest.fixture(params=["coco", "ade20k"])
def begun(request: pytest.FixtureRequest, tmp_path: Path, card: BackboneCard) -> Begun:
    return Begun(request.param, tmp_path, card)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Views drawn, surveys of COCO, label maps read."""
    counts = {"views": 0, "surveys": 0, "read": 0}

    def count(owner: Any, name: str, what: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counting(*given: Any, **more: Any) -> Any:
            found = original(*given, **more)
            counts[what] += len(found) if name == "drawn" else 1
            return found

        monkeypatch.setattr(owner, name, counting)

    for recipe in (LargeScaleJitter, RandomCrops):
        count(recipe, "view", "views")
        count(recipe, "drawn", "views")
    count(instance_data, "survey_split", "surveys")
    count(LabelMaps, "read_annotation", "read")
    return counts


def test_a_resume_draws_no_view_and_reads_no_annotation(begun: Begun, counted: dict[str, int]) -> None:
    dataset = begun.opened()
    estimate = begun_estimate(begun.stores, dataset, begun.recipe, begun.card, **CHOICES)
    assert estimate is not None
    plan = complete_plan(estimate, dataset, begun.recipe, begun.card, **READ)
    assert counted == {"views": 0, "surveys": 0, "read": 0}
    assert encode_plan(plan) == encode_plan(begun.plan)
    assert np.array_equal(plan.rows.params, begun.plan.rows.params)
    first, again = begun.opened(), build_plan(begun.opened(), begun.recipe, begun.card, **READ, **CHOICES)
    assert again.identity == begun.plan.identity and counted["views"] == 2 * len(first.records)


def test_crops_are_placed_without_drawing_the_rest_again(begun: Begun, counted: dict[str, int]) -> None:
    """Views of ADE20K follow from the label map; once in the estimate, then the corner alone."""
    estimate = estimate_plan(begun.opened(), begun.recipe, begun.card, **CHOICES)
    plan = complete_plan(estimate, begun.opened(), begun.recipe, begun.card, **READ)
    assert encode_plan(plan) == encode_plan(begun.plan)
    assert np.array_equal(plan.rows.params, begun.plan.rows.params)
    assert counted["views"] == 2 * len(begun.opened().records)


def test_a_changed_annotation_is_a_new_plan(begun: Begun) -> None:
    path = begun.annotation_file()
    status, data = path.stat(), path.read_bytes()
    changed = data.replace(b'"iscrowd": 0', b'"iscrowd": 1', 1) if begun.name == "coco" else data[::-1]
    assert changed != data and len(changed) == len(data) and begun.resumed() is not None
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert begun.resumed() is None, "of the same length and, as far as programs can set it, age"


@pytest.mark.parametrize(
    "changed", [{"seed": 4}, {"views": 1}, {"codec": "float16"}, {"levels": ("p5",)}, {"pixels": True}]
)
def test_other_choices_are_another_store(begun: Begun, changed: dict[str, Any]) -> None:
    assert begun.resumed(**changed) is None


def test_other_weights_are_planned_with_their_own_batches(begun: Begun) -> None:
    dataset, others = begun.opened(), {**READ, "weights_sha256": "b" * 64}
    choices = {**CHOICES, "batch_rows": 2}
    estimate = begun_estimate(begun.stores, dataset, begun.recipe, begun.card, **choices)
    assert estimate is not None
    plan = complete_plan(estimate, dataset, begun.recipe, begun.card, **others)
    expected = build_plan(begun.opened(), begun.recipe, begun.card, **others, **choices)
    assert encode_plan(plan) == encode_plan(expected)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:100] + b"x"])
def test_a_damaged_record_is_not_used(begun: Begun, damage: Callable[[bytes], bytes]) -> None:
    path = begun.path / "work" / "sources"
    path.write_bytes(damage(path.read_bytes()))
    assert begun.resumed() is None


def test_a_missing_record_is_not_used_and_a_missing_image_is_found(begun: Begun) -> None:
    image = next(path for path in sorted(begun.data.rglob("*.jpg")) if "val" not in str(path))
    image.unlink()
    assert begun.resumed() is None
    (begun.path / "work" / "sources").unlink()
    assert begun.resumed() is None


def test_a_record_is_read_as_it_was_written() -> None:
    record = SourceRecord(state="s", digests=bytes(range(64)), findings={"records": {"é\n": "why"}})
    assert SourceRecord.decode(record.encode()) == record


def test_an_annotation_that_changes_after_planning_is_refused(tmp_path: Path, card: BackboneCard) -> None:
    """Also where its state looks the same: each is compared with its digest when its row comes."""
    begun = Begun("ade20k", tmp_path, card)
    dataset = begun.opened()
    assert begun_estimate(begun.stores, dataset, begun.recipe, begun.card, **CHOICES) is not None
    loader = RowLoader(dataset, begun.plan, SourceDigests())
    key = begun.plan.rows.keys[0]
    loader.load(0)
    path = next(begun.data.rglob(f"annotations/**/{key}.png"))
    other = next(each for each in path.parent.iterdir() if each.read_bytes() != path.read_bytes())
    planned = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(other.read_bytes())
    with pytest.raises(IdentityError, match=f"annotation of record {key}.*{planned}"):
        loader.load(0)
