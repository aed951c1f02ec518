"""A live backbone and centre crops of the images of a data set, in the order of their keys.

Letters in array names: H and W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extract.backbones.levels import PLAIN
from extract.backbones.loading import FrozenBackbone, backbone_card, load_backbone
from extract.backbones.registry import BackboneCard
from extract.datasets import Dataset, chosen_split, first_test_split, open_dataset
from extract.sources.byte_sources import SourceError
from extract.swin.timm_swin import probe
from extract.views.crop_recipes import SHORT_TO_CROP, CentreCrops
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from stores.subsets import key_order

logger = logging.getLogger(__name__)
SHARED_BY_ALL = "in1k"
"""The data set whose name stands in view draws; centre crops draw nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveImage:
    """One view."""

    key: str
    pixels_HW3: npt.NDArray[np.uint8]

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """Pixels (1, H, W, 3) and valid size (1, 2), as a backbone takes them."""
        return torch.from_numpy(self.pixels_HW3[None]), torch.tensor([self.pixels_HW3.shape[:2]])


@dataclass(frozen=True, slots=True)
class LiveImages:
    """Centre crops of a split."""

    dataset: Dataset
    crop_px: int

    def __len__(self) -> int:
        return len(self.dataset.records)

    def images(self, count: int, keys: Sequence[str] = ()) -> Iterator[LiveImage]:
        """The first `count` readable images, those of `keys` first; unusable ones are skipped with a warning.

        Raises UsageError for a key that the split does not have.
        """
        place = {record.key: index for index, record in enumerate(self.dataset.records)}
        if missing := [key for key in keys if key not in place]:
            raise UsageError(f"--query {','.join(missing)}: {self.dataset.split} has no such record")
        recipe = CentreCrops(
            name="centre", crop_px=self.crop_px, short_px=round(self.crop_px * SHORT_TO_CROP)
        )
        done = 0
        for key in dict.fromkeys([*keys, *key_order(place)]):
            if done >= count:
                return
            record = self.dataset.records[place[key]]
            try:
                view = recipe.view(SHARED_BY_ALL, record, 0, 0)
                (pixels,) = self.dataset.media.render(self.dataset.read_source(place[key]), record, [view])
            except SourceError as error:
                logger.warning("skipping %s: %s", key, error.reason)
                continue
            done += 1
            yield LiveImage(key, pixels)

    def identity(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "views": f"centre crops of {self.crop_px} px of a short side of "
            f"{round(self.crop_px * SHORT_TO_CROP)} px",
        }


def live_images(config: AnalyseConfig, card: BackboneCard) -> LiveImages:
    """The images that a live analysis sees. Raises UsageError without a data set, or for one of videos."""
    if config.dataset is None:
        raise UsageError(
            f"--kind {config.kind} of a live backbone needs images: pass --dataset, such as ade20k or the "
            "description that `describe` writes of own photographs"
        )
    split = chosen_split(config.dataset, config.split or _first_split(config.dataset))
    dataset = open_dataset(config.dataset, config.data, split)
    if dataset.records and dataset.records[0].frames is not None:
        raise UsageError(f"--dataset {config.dataset}: analyses of a live backbone read images, not videos")
    return LiveImages(dataset, config.crop_size or pretrained_px(card))


def pretrained_px(card: BackboneCard) -> int:
    """Side of the images that timm's weights of the model were trained on, in whole patches or cells."""
    trained: Any = probe(card.timm_id, card.constructor_args)
    side = int(trained.pretrained_cfg["input_size"][-1])
    return max(card.multiple_px, side // card.multiple_px * card.multiple_px)


def live_card(config: AnalyseConfig, levels: Sequence[str] | None = None) -> BackboneCard:
    """The card of `--model`. Raises UsageError without one, ValueError as `backbone_card`."""
    if config.model is None:
        raise UsageError(f"--kind {config.kind}: pass --model for a live backbone, or --store")
    mean, std = config.mean, config.std
    card = backbone_card(config.model, config.model_args, levels, mean=mean, std=std)
    if not card.is_swin:
        return card
    return backbone_card(config.model, config.model_args, levels, config.window_rule, mean=mean, std=std)


def live_backbones(config: AnalyseConfig, card: BackboneCard, device: torch.device) -> list[FrozenBackbone]:
    """One for each of `--weights`, eager: compiled kernels hold no attention and no outputs of blocks."""
    return [
        load_backbone(card, weights, device=device, precision=config.precision, compiled=False)
        for weights in config.weights
    ]


def patch_grid(card: BackboneCard, crop_px: int) -> tuple[int, int]:
    """Rows and columns of patches of a plain ViT."""
    assert card.family == PLAIN
    return crop_px // card.multiple_px, crop_px // card.multiple_px


def _first_split(dataset: str) -> str | None:
    """The first test split; None, which is the training split, where a data set has no other."""
    try:
        return first_test_split(dataset)
    except ValueError:
        return None
