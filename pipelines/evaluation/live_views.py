"""Test views computed by the live backbone, equal to those a test store would hold."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import Any

import torch

from extract.backbones.loading import FrozenBackbone
from extract.datasets import Dataset, first_test_split, open_dataset
from extract.planning.dataset_identity import box_file, has_truth
from extract.sources.byte_sources import SourceError
from extract.views.recipes import ViewRecipe, views_of
from pipelines.config import EvaluateConfig
from pipelines.errors import UsageError
from pipelines.feed.prefetch import read_ahead
from pipelines.live.backbone import live_features, load_run_backbone, run_test_recipe
from pipelines.runs.run_folder import RunRecord
from pipelines.tasks import TestView, task_of
from pipelines.tasks.contract import targets_there

logger = logging.getLogger(__name__)


def open_live_views(
    config: EvaluateConfig, record: RunRecord, device: torch.device
) -> tuple[Generator[TestView, None, None], str, str, dict[str, Any]]:
    """The test views of a data set, what they are called, where they come from, and the file of their boxes.

    Raises as `open_dataset` and `load_run_backbone` do, IdentityError for other classes than the run's.
    """
    source = record.identity["dataset"]
    split = config.split or first_test_split(source)
    dataset = open_dataset(source, config.data or record.data, split, boxes=config.boxes)
    if not has_truth(dataset) and not config.no_truth:
        raise UsageError(
            f"{dataset.name} {split}: its truth is not published: pass --no-truth, which writes the results "
            "file of its server instead of scores"
        )
    record.check_same_classes(dataset.class_names, f"{dataset.name} {dataset.split}")
    recipe = run_test_recipe(record, config.views, config.short_side, slide_stride=config.slide_stride)
    backbone = load_run_backbone(record, config.weights, device)
    views = read_ahead(live_views(dataset, recipe, backbone), depth=1)
    name = "single" if recipe.fixed_count == 1 else recipe.name.replace("-", "+")
    return views, name, f"{dataset.split} images through {record.model}", box_file(dataset)


def live_views(dataset: Dataset, recipe: ViewRecipe, backbone: FrozenBackbone) -> Iterator[TestView]:
    """The views of each record in turn; an unusable record is skipped with a warning."""
    for index, record in enumerate(dataset.records):
        views = [
            recipe.view(dataset.name, record, number, 0)
            for number in range(views_of(recipe, record, recipe.fixed_count or 1))
        ]
        try:
            targets = dataset.targets(dataset.read_truth(index), views[0])
            task = task_of(dataset.task)
            wanted = (
                targets_there(task, task.test_targets, targets) if has_truth(dataset) else task.test_targets
            )
            truth = {name: targets[name] for name in wanted if name in targets}
            rendered = dataset.media.render(dataset.read_source(index), record, views)
        except SourceError as error:
            logger.warning("skipping %s: %s", record.key, error.reason)
            continue
        for view, pixels in zip(views, rendered, strict=True):
            yield TestView(
                key=record.key,
                features=live_features(backbone, pixels[None], [view.valid_hw]),
                valid_hw=view.valid_hw,
                params=dict(zip(dataset.media.view_params, view.to_params().tolist(), strict=True)),
                original_hw=record.original_hw,
                truth=truth,
            )
