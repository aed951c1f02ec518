"""Feature maps beside the pictures they are of, out of a store or a live backbone.

Letters in array names: H and W pixels, C channels, y and x cells.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.analyses.live_images import live_backbones, live_card, live_images
from pipelines.analyses.sample_rows import cut_to, sample_rows
from pipelines.analyses.written import backbone_identity, store_identity
from pipelines.catalog.data_folder import recorded_data
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.live.recompute_levels import open_pixels
from pipelines.machine.devices import choose_device
from stores.errors import StoreError
from stores.reading.reader import Store, open_store

logger = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShownFeatures:
    """One view: valid cells only."""

    key: str
    view: int
    picture_HW3: Pixels | None
    """What the backbone saw; None where pixels are not at hand."""
    hw: tuple[int, int]
    """Its size in pixels, without padding."""
    maps: dict[str, npt.NDArray[np.float32]]
    """Level -> (C, y, x), the finest first; of a clip its middle frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSample:
    """Views of different records, and what they are of."""

    name: str
    views: tuple[ShownFeatures, ...]
    strides_px: dict[str, float]
    identity: dict[str, Any]


def shown_features(config: AnalyseConfig, count: int, keys: Sequence[str] = ()) -> FeatureSample:
    """Up to `count` views of different records, those of `keys` first.

    Raises UsageError for a level that is not there or is one cell an image.
    """
    if config.store:
        return _of_store(config, count, keys)
    return _of_backbone(config, count, keys)


def _of_store(config: AnalyseConfig, count: int, keys: Sequence[str]) -> FeatureSample:
    if len(config.store) > 1:
        raise UsageError(f"--kind {config.kind}: expected one --store, found {len(config.store)}")
    with open_store(config.store[0]) as store:
        if missing := [key for key in keys if key not in set(store.keys)]:
            raise UsageError(f"--query {','.join(missing)}: {store.path} has no such record")
        strides = {level.name: level.stride_px for level in store.pyramid if not level.is_pooled}
        levels = _chosen(config.levels, strides, str(store.path))
        asked = [store.keys.index(key) for key in keys]
        rows = list(dict.fromkeys([*asked, *sample_rows(store, len(store)).rows]))
        first_of_record = list({store.keys[row]: row for row in reversed(rows)}.values())[::-1]
        chosen = sorted(first_of_record, key=rows.index)[:count]
        pictures = row_pictures(store, chosen, config.data or recorded_data(store.path))
        views = []
        for row, picture in zip(chosen, pictures, strict=True):
            hw = (int(store.valid_hw[row][0]), int(store.valid_hw[row][1]))
            features = store.read_features([row], levels)
            maps = {level: _middle_frame(cut_to(features[level][0], strides[level], hw)) for level in levels}
            views.append(
                ShownFeatures(
                    key=store.keys[row], view=int(store.views[row]), picture_HW3=picture, hw=hw, maps=maps
                )
            )
        return FeatureSample(
            name=store.path.name,
            views=tuple(views),
            strides_px={level: strides[level] for level in levels},
            identity=store_identity(store),
        )


def row_pictures(store: Store, rows: Sequence[int], data: str | None) -> list[Pixels | None]:
    """What the backbone saw of each row, without padding: stored pixels, else the source images replayed;
    None for all, with a line of log, where neither is at hand."""
    pixels = "stored" if store.plan.pixels else "source"
    try:
        source = open_pixels(store, "stored" if store.plan.pixels else "source", data, 1)
        try:
            found = []
            for row in rows:
                picture = source.read(store, [row])[0]
                picture = picture[len(picture) // 2] if picture.ndim == 4 else picture
                height, width = store.valid_hw[row]
                found.append(np.ascontiguousarray(picture[:height, :width]))
            return list(found)
        finally:
            source.close()
    except (StoreError, ValueError, OSError, ModuleNotFoundError) as error:
        logger.info("%s: without pictures (pixels %s: %s)", store.path, pixels, str(error)[:200])
        return [None] * len(rows)


def _middle_frame(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return x[:, x.shape[1] // 2] if x.ndim == 4 else x


def _chosen(asked: Sequence[str] | None, strides: dict[str, float], where: str) -> list[str]:
    if not strides:
        raise UsageError(f"{where} holds pooled vectors only, no maps to show")
    if missing := [level for level in asked or () if level not in strides]:
        raise UsageError(f"--levels {','.join(missing)}: no map in {where}; it has {', '.join(strides)}")
    return list(asked or strides)


def _of_backbone(config: AnalyseConfig, count: int, keys: Sequence[str]) -> FeatureSample:
    card = live_card(config, config.levels)
    images = live_images(config, card)
    if len(config.weights) > 1:
        raise UsageError(f"--kind {config.kind}: expected one of --weights")
    (backbone,) = live_backbones(config, card, choose_device(config.device))
    strides = {level.name: level.stride_px for level in backbone.pyramid if not level.is_pooled}
    levels = _chosen(config.levels, strides, card.model)
    views = []
    for image in images.images(count, keys):
        found = backbone(*image.batch)
        views.append(
            ShownFeatures(
                key=image.key,
                view=0,
                picture_HW3=image.pixels_HW3,
                hw=(image.pixels_HW3.shape[0], image.pixels_HW3.shape[1]),
                maps={level: found[level][0].permute(2, 0, 1).float().cpu().numpy() for level in levels},
            )
        )
    return FeatureSample(
        name=f"{card.model.replace(':', '-')}-{images.dataset.name}",
        views=tuple(views),
        strides_px={level: strides[level] for level in levels},
        identity={**backbone_identity(backbone, config.weights[0]), "images": images.identity()},
    )
