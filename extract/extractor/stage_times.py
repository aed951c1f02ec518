"""Seconds that the stages of an extraction take on this machine, measured one at a time.

The backbone is untrained, whose speed is that of a trained one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from extract.backbones.compiler import compiles
from extract.backbones.cuda_graphs import PLAIN_CALLS
from extract.backbones.frozen import BackboneTooLarge, FrozenBackbone
from extract.backbones.loading import BackboneCard, build_trunk
from extract.backbones.weights import Weights
from extract.datasets.contract import Dataset
from extract.extractor.batch_order import views_at_once
from extract.extractor.batch_shapes import BatchTooLarge, fit_batches, shape_matters
from extract.extractor.codec_error import sample_cells
from extract.extractor.encode_batch import assemble, encode_batch, view_shape
from extract.extractor.row_loader import LoadedRow, RowLoader, SourceDigests
from extract.planning.backbone_costs import backbone_costs
from extract.planning.plan import survey, view_count
from extract.sources.record import READ_THREADS
from extract.swin.timm_swin import probe
from extract.views.recipes import ViewRecipe
from stores.errors import IdentityError
from stores.format.plan import ShardId, StorePlan

SURVEYED = 24
"""Records whose annotations are read, as the plan of a store reads all."""

GIANT_MULTIPLY_ADDS = 3e11
"""Of a row that a CPU computes for several seconds."""


class TooLarge(MemoryError):
    """The backbone does not fit into the free memory, so it cannot be measured."""


def decode_seconds(dataset: Dataset, plan: StorePlan, workers: int, at_least_s: float) -> float:
    """Seconds a row, while `workers` threads decode for `at_least_s`; 0 where no row can be decoded.

    Rows that cannot be decoded, and those outside the data set's subset, are not counted.
    """
    loader = RowLoader(dataset, plan, SourceDigests())
    together = views_at_once(plan)
    rows = np.random.default_rng(0).permutation(len(plan.rows) // together).tolist()
    if dataset.subset is not None:
        rows = [row for row in rows if plan.rows.keys[row] in dataset.subset]
    groups = [list(range(row, len(plan.rows), len(plan.rows) // together)) for row in rows]
    size = 2 * workers
    rounds = [groups[i : i + size] for i in range(0, len(groups), size)]
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        for some in rounds:
            done += sum(pool.map(partial(_load, loader), some))
            if time.perf_counter() - began > at_least_s:
                break
    return (time.perf_counter() - began) / done if done else 0.0


def _load(loader: RowLoader, rows: Sequence[int]) -> int:
    """How many rows were loaded."""
    try:
        return len(loader.load_views(rows))
    except IdentityError:  # `extract` will say so
        return 0


def survey_seconds(dataset: Dataset, recipe: ViewRecipe, views: int | None, seed: int) -> float:
    """Seconds a record, for reading its annotation and choosing its views.

    Args:
        views: of a training recipe; None where the recipe has a fixed number.
    """
    work = partial(survey, dataset, recipe, view_count(recipe, views), seed)
    chosen = np.linspace(0, len(dataset.records) - 1, num=min(SURVEYED, len(dataset.records)), dtype=int)
    began = time.perf_counter()
    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(work, chosen.tolist()))
    return (time.perf_counter() - began) / len(chosen)


def build_untrained(
    card: BackboneCard, plan: StorePlan, *, device: torch.device, precision: str, free_bytes: int
) -> tuple[FrozenBackbone, StorePlan, float]:
    """The backbone with initial weights, the plan with batches that fit its device, and the seconds it took.

    Args:
        free_bytes: of the host's memory.

    Raises TooLarge where host or device has not enough memory.
    """
    weights = untrained_weights(card, free_bytes)
    began = time.perf_counter()
    try:
        backbone = FrozenBackbone(
            card, weights, device=device, precision=precision, compiled=compiles(device)
        )
        fitted = fit_batches(plan, backbone)
    except (BackboneTooLarge, BatchTooLarge) as error:
        raise TooLarge(str(error)) from error
    return backbone, fitted, time.perf_counter() - began


def untrained_weights(card: BackboneCard, free_bytes: int) -> Weights:
    """Initial weights. Raises TooLarge where they do not fit `free_bytes`."""
    parameters = sum(value.numel() for value in probe(card.timm_id, card.constructor_args).parameters())
    needed = 12 * parameters  # float32 twice while it is built, and room for activations
    if needed > free_bytes:
        raise TooLarge(
            f"{parameters / 1e9:.1f} billion parameters need {needed / 1e9:.0f} GB of memory, "
            f"{free_bytes / 1e9:.0f} GB are free"
        )
    return Weights(build_trunk(card).state_dict(), sha256="untrained")


def forward_seconds(
    plan: StorePlan, index: int, backbone: FrozenBackbone, at_least_s: float
) -> tuple[float, float]:
    """Seconds that the first batches of bin `index` take longer than later ones, and of a row in these.

    On a CPU the time this takes is bounded, since rows cost in proportion: batches are no larger than can be
    computed in `at_least_s`; a row that takes longer is measured alone; and of a giant backbone, only a
    quarter of one view is (`_giant_row_seconds`).
    """
    device, has_shapes = backbone.device, shape_matters(backbone.device)
    if not has_shapes and (giant := _giant_row_seconds(plan, index, backbone)) is not None:
        return 0.0, giant
    b = plan.bins[index]
    shape = view_shape(plan, index)
    row = noise_row(shape)

    def forward(count: int) -> float:
        sampled = sample_cells(plan, ShardId(index, 0), range(count))
        return _timed(
            lambda: encode_batch(backbone, plan, assemble([row] * count, shape, sampled, device)).wait()
        )

    count = min(b.batch_rows or 1, b.shard_rows)
    if not has_shapes:
        if (alone := forward(1)) > at_least_s:
            return 0.0, alone
        count = min(count, max(2, int(at_least_s / alone)))  # two: images of a batch share the cores
    warm_up = PLAIN_CALLS + 1 if has_shapes else 1
    first, passes = sum(forward(count) for _ in range(warm_up)), [forward(count)]
    while sum(passes) < at_least_s:
        passes.append(forward(count))
    usual = float(np.mean(passes))  # what others do on the machine slows the extraction just as much
    return max(0.0, first - warm_up * usual), usual / count


def _giant_row_seconds(plan: StorePlan, index: int, backbone: FrozenBackbone) -> float | None:
    """Seconds of a row, from one frame of half the height and width, by the ratio of their multiply-adds.

    None where a row costs less than GIANT_MULTIPLY_ADDS, or cannot be counted: then it is measured whole.
    """
    b = plan.bins[index]
    of_row = backbone_costs(backbone.card, [b], plan.frames)["multiply_adds"]
    if of_row is None or of_row < GIANT_MULTIPLY_ADDS:
        return None
    half = replace(b, height_px=max(1, b.height_px // 2), width_px=max(1, b.width_px // 2))
    of_half = backbone_costs(backbone.card, [half])["multiply_adds"]
    if of_half is None:
        return None
    view = torch.as_tensor(noise_row((half.height_px, half.width_px)).pixels)[None]
    sizes = torch.tensor([[half.height_px, half.width_px]])
    ratio: float = of_row / of_half
    return ratio * _timed(lambda: backbone(view, sizes))


def noise_row(shape: tuple[int, ...]) -> LoadedRow:
    """Pixels without meaning, ([T,] H, W). Not empty ones: a CPU takes a fifth longer for these."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return LoadedRow(pixels=pixels, valid_hw=(shape[-2], shape[-1]), targets={}, source_sha256=bytes(32))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
