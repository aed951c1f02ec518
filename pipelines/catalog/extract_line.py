"""The `make extract` line that makes a run's test store; loads the data sets and the backbones' cards."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from extract.backbones.registry import backbone_card
from extract.datasets import dataset_module, default_window_rule, first_test_split, view_recipe
from extract.views.crop_size import size_text
from extract.views.view import interpolation_of
from pipelines.catalog.choose_backbone import chosen_card
from pipelines.catalog.stores import TEST, StoreQuery, description_file
from pipelines.runs.run_folder import RunRecord
from pipelines.runs.same_source import window_rule_of
from pipelines.runs.view_scale import is_sized_by_crop


def extract_line(record: RunRecord, *, split: str | None = None, views: str | None = None) -> str:
    """The command: data set, backbone, levels, scale, windows and model arguments as the head was trained.

    Args:
        record: of the run.
        split, views: asked for; None: the first test split, and its default views.
    """
    query = StoreQuery(
        purpose=TEST,
        dataset=record.dataset,
        description=description_file(record.identity["dataset"]),
        split=split or first_test_split(record.identity["dataset"]),
        model=record.model,
        levels=record.levels,
    )
    line = query.extract_command + (f" VIEWS={views}" if views else "")
    line += f" WEIGHTS={shlex.quote(record.weights)}" if record.weights not in (None, "timm") else ""
    flags = [*_scale_flags(record), *_backbone_flags(record), *_pixel_flags(record)]
    return f'{line} ARGS="{" ".join(flags)}"' if flags else line


def _scale_flags(record: RunRecord) -> Iterator[str]:
    trained = record.identity["views"]
    module = dataset_module(record.identity["dataset"])
    papers = view_recipe(record.identity["dataset"], module.TRAINING_VIEWS[0]).identity().get("scale_px")
    scale = trained.get("scale_px")
    if scale is not None and list(scale) != papers:
        by_crop = is_sized_by_crop(trained)
        yield f"--crop-size {size_text(_crop_size(trained))}" if by_crop else f"--short-side {scale[1]}"


def _crop_size(views: Mapping[str, Any]) -> Any:
    """The crop of views of clips and photographs: named where it is no square."""
    return views.get("crop_px", views["scale_px"][1])


def _backbone_flags(record: RunRecord) -> Iterator[str]:
    backbone = record.identity["backbone"]
    rule = window_rule_of(backbone)
    if rule not in (None, default_window_rule(record.identity["dataset"])):
        yield f"--window-rule {rule}"
    defaults = _default_arguments(record, rule)
    for name, value in backbone.get("args", {}).items():
        if defaults is not None and defaults.get(name) != value:
            yield f"--model-args.{name} {json.dumps(value, separators=(',', ':'))}"


def _pixel_flags(record: RunRecord) -> Iterator[str]:
    """Of the backbone's input, where it is not what `extract` takes by itself."""
    backbone, views = record.identity["backbone"], record.identity["views"]
    try:
        card = backbone_card(record.model, backbone.get("args"))
    except ValueError:  # this installation lacks the backbone
        return
    for name in ("mean", "std"):
        if (values := backbone.get(name)) is not None and tuple(values) != getattr(card, name):
            yield f"--{name} {','.join(f'{value!r}' for value in values)}"
    if "pos_resample" in backbone:
        yield f"--pos-resample {backbone['pos_resample']}"
    if card.interpolation is not None and interpolation_of(views) != card.interpolation:
        yield f"--interpolation {interpolation_of(views)}"


def _default_arguments(record: RunRecord, rule: str | None) -> dict[str, Any] | None:
    """What `extract` gives the backbone by itself; None for one that this installation lacks."""
    module = dataset_module(record.identity["dataset"])
    views = record.identity["views"]
    crop = _crop_size(views) if "scale_px" in views and is_sized_by_crop(views) else None
    recipe = view_recipe(record.identity["dataset"], module.TRAINING_VIEWS[0], crop_size=crop)
    try:
        card = chosen_card(record.identity["dataset"], recipe, record.model, {}, record.levels, rule)
    except ValueError:
        return None
    return dict(json.loads(json.dumps(dict(card.args))))
