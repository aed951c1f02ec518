"""CKA between the outputs of every block of a live backbone, and between two of its weights."""

from __future__ import annotations

import time
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from extract.analysis.block_visits import block_modules, visit_blocks
from extract.backbones.levels import PLAIN, prefix_tokens
from extract.backbones.loading import FrozenBackbone
from extract.planning.backbone_costs import backbone_costs
from pipelines.analyses.cost import Cost, announced_rows, products_a_second
from pipelines.analyses.live_images import LiveImage, LiveImages, live_backbones, live_card, live_images
from pipelines.analyses.memory import memory_bytes
from pipelines.analyses.pictures.heat_maps import HeatMap, stage_borders
from pipelines.analyses.similarity.cka import LEAST_ROWS, cka_matrix
from pipelines.analyses.similarity.cka_result import cka_analysis
from pipelines.analyses.similarity.held_features import GramCollector, batch_rows, pooled_map
from pipelines.analyses.written import Analysis, backbone_identity
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.machine.devices import choose_device
from stores.format.plan import Bin

USUAL_ROWS = 512


def cka_of_blocks(config: AnalyseConfig) -> Analysis:
    """A matrix for each of the weights, and one for each pair of them.

    Raises UsageError without images, or where the split has fewer than four.
    """
    card = live_card(config)
    images = live_images(config, card)
    backbones = live_backbones(config, card, choose_device(config.device))
    wanted = min(config.rows or USUAL_ROWS, len(images))
    if wanted < LEAST_ROWS:
        raise UsageError(f"{images.dataset.split} has {wanted} images: cka needs {LEAST_ROWS} or more")
    first = next(images.images(1))
    began = time.perf_counter()
    widths = [sum(x.size for x in block_outputs(each, first, config.pool).values()) for each in backbones]
    cost = _cost(images, backbones, sum(widths), time.perf_counter() - began)
    rows = announced_rows(wanted, cost)
    in_batch = batch_rows(rows, sum(widths), memory_bytes(config.memory_gb), config.batch)
    collectors, keys = [GramCollector(in_batch) for _ in backbones], []
    for image in images.images(rows):
        keys.append(image.key)
        for backbone, collector in zip(backbones, collectors, strict=True):
            for name, x in block_outputs(backbone, image, config.pool).items():
                collector.add(name, x)
    maps = [
        _heat_map(config, collectors, first, second)
        for first, second in [
            *((i, i) for i in range(len(backbones))),
            *combinations(range(len(backbones)), 2),
        ]
    ]
    return cka_analysis(
        config,
        f"{(config.model or '').replace(':', '-')}-{images.dataset.name}",
        maps,
        identity={
            "backbones": [
                backbone_identity(each, weights)
                for each, weights in zip(backbones, config.weights, strict=True)
            ],
            "images": images.identity(),
            "keys": keys,
        },
        rows=collectors[0].rows,
        batch_rows=in_batch,
        wanted_rows=rows,
    )


def block_outputs(
    backbone: FrozenBackbone, image: LiveImage, pool: str
) -> dict[str, npt.NDArray[np.float32]]:
    """Output of each block for one image as one vector; of a ViT without its prefix tokens."""
    modules, found = block_modules(backbone), {}
    network: Any = backbone.network
    prefix = prefix_tokens(network.trunk) if backbone.card.family == PLAIN else 0

    def keep(name: str, module: nn.Module, before: Tensor, after: Tensor) -> None:
        if name in modules:
            x = after[0, prefix:] if backbone.card.family == PLAIN else after[0]
            channels_first = x.movedim(-1, 0) if backbone.card.family == PLAIN or backbone.card.is_swin else x
            found[name] = pooled_map(channels_first.float().cpu().numpy(), pool)

    visit_blocks(backbone, *image.batch, keep)
    return found


def _cost(images: LiveImages, backbones: list[FrozenBackbone], values: int, seconds: float) -> Cost:
    size = Bin(height_px=images.crop_px, width_px=images.crop_px, rows=1, shard_rows=1)
    counted = backbone_costs(backbones[0].card, [size])["multiply_adds"] or 0
    forward, speed = len(backbones) * counted, products_a_second()
    source = sum(record.source_bytes for record in images.dataset.records) / max(1, len(images))
    return Cost(
        multiply_adds=lambda rows: rows * forward + rows**2 * values,
        bytes_read=lambda rows: rows * source,
        seconds=lambda rows: rows * seconds + rows**2 * values / speed,
    )


def _heat_map(config: AnalyseConfig, collectors: list[GramCollector], first: int, second: int) -> HeatMap:
    rows, columns = collectors[first].grams, collectors[second].grams
    weights = config.weights
    alone = first == second
    return HeatMap(
        title=f"{config.model}, {weights[first]}" if alone else f"{weights[first]} by {weights[second]}",
        rows=list(rows),
        columns=list(columns),
        values=cka_matrix(list(rows.values()), list(columns.values()), config.estimator),
        row_label="block" if alone else f"block, {weights[first]}",
        column_label="block" if alone else f"block, {weights[second]}",
        borders=(stage_borders(list(rows)), stage_borders(list(columns))),
    )
