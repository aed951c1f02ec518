"""`train-head --online`: the same head and recipe on the live backbone, with new views in every epoch.

Compared with a run from a store, it measures what more views would gain. Visit n of a record is its view n,
drawn as `extract` draws view n of a store, so V epochs from a store of V views and the first V epochs online
show the same views, in another order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from extract.backbones.loading import BackboneCard, FrozenBackbone, backbone_card, load_backbone
from extract.datasets import Dataset, choose, default_levels, open_dataset
from extract.planning.dataset_identity import only_boxes, own_description, stuff_kind, task_facts
from extract.sources.byte_sources import SourceError
from extract.views.fitted_views import fitted_to
from extract.views.recipes import ViewRecipe
from extract.views.view import interpolation_of, revision_of
from pipelines.catalog.choose_backbone import chosen_card, pixels_of, tagged_model
from pipelines.config import TrainConfig
from pipelines.errors import UsageError, WorkFailed
from pipelines.feed.datamodule import Stretch, TrainingData
from pipelines.feed.joined_stores import RowIndex, Rows
from pipelines.feed.prefetch import read_ahead
from pipelines.feed.row_order import EndlessRows
from pipelines.feed.store_feed import Batch
from pipelines.live.backbone import live_features
from pipelines.runs.run_folder import read_run
from pipelines.runs.same_source import window_rule_of
from pipelines.tasks import task_of
from pipelines.tasks.contract import targets_there

logger = logging.getLogger(__name__)


def _begun(config: TrainConfig) -> Mapping[str, Any] | None:
    """The identity of the run that is resumed; None for a new run."""
    return read_run(Path(config.run)).identity if config.resume and config.run else None


def _card(
    config: TrainConfig, begun: Mapping[str, Any] | None, dataset: str, model: str, recipe: ViewRecipe
) -> BackboneCard:
    """The backbone; a run that is resumed keeps the windows and the rule it began with."""
    if begun is None:
        return chosen_card(
            dataset,
            recipe,
            model,
            config.model_args,
            config.levels,
            config.window_rule,
            default_levels=default_levels(dataset),
            **pixels_of(config),
        )
    backbone, args = begun["backbone"], dict(config.model_args)
    if "window_size" in backbone["args"]:
        args.setdefault("window_size", backbone["args"]["window_size"])
    rule = config.window_rule or window_rule_of(backbone) or "partition"
    levels = config.levels or default_levels(dataset)
    return backbone_card(model, args, levels, window_rule=rule, **pixels_of(config))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pixels:
    """One view of one record, before the backbone."""

    key: str
    pixels: npt.NDArray[np.uint8]
    """([T,] H, W, 3)"""
    targets: Mapping[str, npt.NDArray[Any]]
    valid_hw: tuple[int, int]


class OnlineData(TrainingData):
    """The batches of a run from images through the live backbone."""

    def __init__(
        self, dataset: Dataset, recipe: ViewRecipe, backbone: FrozenBackbone, config: TrainConfig
    ) -> None:
        super().__init__()
        self._dataset, self._recipe, self._backbone, self._config = dataset, recipe, backbone, config
        self.name = f"{dataset.name}-{dataset.split}-{config.model}-online".replace(":", "-")
        self.pyramid, self.levels, self.stores = backbone.pyramid, backbone.pyramid.names, ()
        self.records = len(dataset.records if dataset.subset is None else dataset.subset)
        self.batch_size, self.val_store = config.batch_size, config.val_store
        self.identity: dict[str, Any] = {
            "dataset": {
                "name": dataset.name,
                "split": dataset.split,
                "task": dataset.task,
                "num_classes": dataset.num_classes,
                "class_names": list(dataset.class_names),
                **only_boxes(dataset),
                **own_description(dataset),
                **task_facts(dataset),
                **stuff_kind(dataset),
            },
            "views": {**recipe.identity(), "count": None, "seed": config.seed},
            "backbone": backbone.identity(),
            "codec": {"name": None, "settings": {}},
        }
        self._batches: Generator[list[_Pixels], None, None] | None = None

    @classmethod
    def open(cls, config: TrainConfig, device: torch.device) -> OnlineData:
        """Opens the data set and loads the backbone.

        Raises UsageError without --dataset or --model, with --store, or for a test split; otherwise as they
        do.
        """
        if config.dataset is None or config.model is None or config.store is not None:
            raise UsageError("--online needs --dataset and --model and does not accept --store")
        begun = _begun(config)
        revision = None if begun is None else revision_of(begun["views"])
        chosen = choose(config.dataset, config.split, crop_size=config.crop_size, revision=revision)
        if chosen.views is None:
            raise UsageError(f"--split {chosen.split} is a test split; --online trains on a training split")
        dataset = open_dataset(config.dataset, config.data, chosen.split, config.subset, stuff=config.stuff)
        card = _card(config, begun, config.dataset, tagged_model(config), chosen.recipe)
        recipe = fitted_to(
            *(chosen.recipe, card.multiple_px, card.model),
            crop_given=config.crop_size is not None,
            interpolation=card.interpolation if begun is None else interpolation_of(begun["views"]),
        )
        backbone = load_backbone(card, config.weights or "timm", device=device)
        return cls(dataset, recipe, backbone, config)

    @property
    def target_names(self) -> tuple[str, ...]:
        has_stuff = "stuff" in self.identity["dataset"]
        return tuple(name for name in super().target_names if name != "stuff" or has_stuff)

    def describe(self) -> str:
        return f"{len(self._dataset.records)} {self._dataset.split} images through {self._config.model}"

    def batches(self, stretch: Stretch) -> Iterator[Batch]:
        config, subset = self._config, self._dataset.subset
        kept = [
            number
            for number, record in enumerate(self._dataset.records)
            if subset is None or record.key in subset
        ]
        keys = tuple(self._dataset.records[number].key for number in kept)
        rows = EndlessRows(
            RowIndex(keys=keys, views=np.zeros(len(keys), np.int32)),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=stretch.rank,
            world=stretch.world,
        )
        steps = rows.steps(stretch.start_step, stretch.stop_step)
        self._batches = read_ahead(
            self._decoded((np.array(kept)[step.rows], step.visits) for step in steps), depth=2
        )
        return (self._through_backbone(batch) for batch in self._batches)

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()

    def _decoded(self, visits: Iterator[tuple[Rows, Rows]]) -> Iterator[list[_Pixels]]:
        workers = self._config.threads or len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for records, numbers in visits:
                found = pool.map(self._view, records.tolist(), numbers.tolist())
                batch = [view for view in found if view is not None]
                if not batch:
                    raise WorkFailed("no image of a batch could be used; see the warnings above")
                yield batch

    def _view(self, index: int, number: int) -> _Pixels | None:
        """View `number` of a record; None, with a warning, where the record cannot be used."""
        dataset, record = self._dataset, self._dataset.records[index]
        try:
            truth = dataset.read_truth(index)
            view = self._recipe.view(dataset.name, record, number, self._config.seed, truth)
            (pixels,) = dataset.media.render(dataset.read_source(index), record, [view])
        except SourceError as error:
            logger.warning("skipping %s: %s", record.key, error.reason)
            return None
        return _Pixels(
            key=record.key,
            pixels=pixels,
            targets=dataset.targets(truth, view),
            valid_hw=view.valid_hw,
        )

    def _through_backbone(self, batch: list[_Pixels]) -> Batch:
        valid_hw = [view.valid_hw for view in batch]
        return Batch(
            features=live_features(self._backbone, np.stack([view.pixels for view in batch]), valid_hw),
            targets=[self._targets(view) for view in batch],
            valid_hw=valid_hw,
            keys=tuple(view.key for view in batch),
        )

    def _targets(self, view: _Pixels) -> dict[str, torch.Tensor]:
        task = task_of(self._dataset.task)
        wanted = targets_there(task, task.training_targets, view.targets)
        stored = {name: view.targets[name] for name in wanted}
        given = task.head_targets(stored)
        return {name: torch.from_numpy(array).to(self._backbone.device) for name, array in given.items()}
