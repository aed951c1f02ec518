"""Plans of stores: identity and geometry, fixed before the first pixel is decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extract.datasets.contract import Dataset
from extract.datasets.layouts.annotation_digest import digest_of
from extract.planning.dataset_identity import dataset_identity
from extract.planning.geometry import is_pooled, planned_bin, row_table
from extract.sources.byte_sources import SourceError, retried
from extract.sources.record import READ_THREADS
from extract.views.recipes import ViewRecipe, views_of
from extract.views.view import Hw
from stores.codecs import codec, find_codec
from stores.format.array_spec import FORMAT_NAME, FORMAT_VERSION
from stores.format.arrays import sharded_arrays
from stores.format.canonical_json import normalized
from stores.format.features import DOTTED_LEVEL_NAMES, NEW_OPTIONAL, NEW_REQUIRED, WIDE_SHARDS
from stores.format.packing import targets_with_own_shards
from stores.format.pixel_differences import PIXEL_DIFFERENCES
from stores.format.plan import MAX_SHARD_ROWS, Bin, StorePlan
from stores.format.size_estimate import FileCount, count_files, level_estimate
from stores.plugins import provided_by
from stores.pyramid import PyramidSpec
from stores.writing.codec_fit import fit_rule

Params = npt.NDArray[np.float64]

_DRAWN_TOGETHER = 4096
"""Records whose views are drawn at a time: what is made of them stays in the cache."""
NOT_READ = "not read"
"""In the identity of an estimate, for what `complete_plan` fills in."""


class Card(Protocol):
    """What a plan needs to know of a backbone; see extract.backbones.loading."""

    @property
    def model(self) -> str: ...

    @property
    def pyramid(self) -> PyramidSpec: ...

    def identity(self, *, weights_sha256: str, precision: str) -> dict[str, Any]:
        """Everything its numbers follow from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanChoices:
    """What a user decides about a store beside data set, views and backbone."""

    codec: str = "int8"
    """A module of stores.codecs."""
    levels: Sequence[str] | None = None
    """Names of the levels to keep; None: all of the card's."""
    views: int | None = None
    """Views of each record, for recipes that take any number; None: 1, or the recipe's own number."""
    seed: int = 0
    """Of the views; test recipes ignore it."""
    pixels: bool = False
    """Whether the views' pixels are stored too."""
    shard_rows: int | None = None
    """S; None: by the rule of the format. Not part of the identity."""
    batch_rows: int = 4
    """Rows of a forward pass at 512x512. Not part of the identity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A store's geometry and size, before annotations and weights are read."""

    choices: PlanChoices
    plan: StorePlan
    """Its identity lacks annotations and weights, and its crops may lie elsewhere: see `complete_plan`."""
    bytes_by_level: dict[str, int]
    """Features and scales."""
    total_bytes: int
    """Everything on the disk, without the holes of rows outside a subset; compressed targets and pixels by
    rule of thumb."""
    files: FileCount
    params: Sequence[Params] = ()
    """Of each record its views, float64 (V, P), as they are without the truth; none of a begun store."""
    begun: StorePlan | None = None
    """That of a store which was begun, see `extract.planning.begun`; `plan` is then this one."""


def estimate_plan(dataset: Dataset, recipe: ViewRecipe, card: Card, **choices: Any) -> Estimate:
    """The geometry and size of a store. Reads no annotation and no image.

    Args:
        dataset: an open split; its subset becomes part of the identity, not of the geometry.
        recipe: chooses the views.
        card: the backbone's.
        choices: the fields of PlanChoices.

    Raises ValueError for views that the recipe does not have, unknown levels or codec.
    """
    return _estimated(dataset, recipe, card, PlanChoices(**choices))


def _estimated(dataset: Dataset, recipe: ViewRecipe, card: Card, chosen: PlanChoices) -> Estimate:
    count = view_count(recipe, chosen.views)
    params = _params_without_truth(dataset, recipe, count, chosen.seed)
    plan = _draft(dataset, recipe, card, chosen, params)
    return replace(estimate_of(plan, dataset, chosen), params=params)


def estimate_of(
    plan: StorePlan, dataset: Dataset, chosen: PlanChoices, begun: StorePlan | None = None
) -> Estimate:
    """The sizes of a plan; `begun` as of Estimate."""
    by_level = dict.fromkeys(plan.pyramid.names, 0)
    for index, b in enumerate(plan.bins):
        specs = sharded_arrays(plan, index)
        for name, spec in specs.items():
            if name.startswith("levels/"):
                in_shards = b.rows * spec.stored_row_bytes + spec.shards * spec.index_bytes
                by_level[name.split("/")[1]] += in_shards
    return Estimate(
        choices=chosen,
        plan=plan,
        bytes_by_level=by_level,
        total_bytes=needed_bytes(plan, dataset),
        files=count_files(plan),
        begun=begun,
    )


def complete_plan(
    estimate: Estimate,
    dataset: Dataset,
    recipe: ViewRecipe,
    card: Card,
    *,
    weights_sha256: str,
    precision: str,
    threads: int = READ_THREADS,
    on_record: Callable[[int, int], None] | None = None,
) -> StorePlan:
    """The plan to write a store by. Reads every annotation once, and no image.

    The geometry is the estimate's; crops of recipes that look at annotations are placed anew.

    Args:
        estimate: of the same data set, recipe and card.
        weights_sha256: of the backbone's weights, 64 hex digits.
        precision: of the forward pass: fp32, fp16 or bf16.
        threads: that read annotations.
        on_record: called with (records done, records) while annotations are read.

    Raises OSError where an annotation cannot be read.
    """
    begun, backbone = estimate.begun, card.identity(weights_sha256=weights_sha256, precision=precision)
    if begun is not None:
        if begun.identity["backbone"] == normalized(backbone):
            if on_record:
                on_record(len(dataset.records), len(dataset.records))
            return begun
        estimate = _estimated(dataset, recipe, card, estimate.choices)
    draft = estimate.plan
    _ = getattr(dataset, "source_state", None)  # as it is before annotations are read
    work = partial(
        survey, dataset, recipe, draft.rows.view_count, estimate.choices.seed, known=estimate.params
    )
    digests, params = [], []
    everything = range(len(dataset.records))
    is_known = not recipe.looks_at_truth and _known_digest(dataset, 0) is not None
    with ThreadPoolExecutor(threads) as pool:
        for digest, record_params in (map if is_known else pool.map)(work, everything):
            digests.append(digest)
            params.append(record_params)
            if on_record:
                on_record(len(digests), len(dataset.records))
    keys = (record.key for record in dataset.records)
    annotations = digest_of(zip(keys, digests, strict=True))
    identity = {
        **draft.identity,
        "dataset": {**draft.identity["dataset"], "annotations_sha256": annotations},
        "backbone": backbone,
    }
    if getattr(dataset, "survey_record", True) is None:  # has room for it, and none yet
        dataset.use_survey(b"".join(map(bytes.fromhex, digests)), {})  # type: ignore[attr-defined]
    placed = [record_params for record_params in params if record_params is not None]
    if not placed:
        return replace(draft, identity=identity)
    rows, _ = row_table(dataset, placed)
    assert np.array_equal(rows.padded_hw, draft.rows.padded_hw), "a recipe's sizes depend on the annotation"
    targets = dataset.target_specs(recipe.fixed_count is not None, placed)
    own_shards = targets_with_own_shards(targets, draft.bins, rows.original_hw)
    return replace(draft, identity=identity, rows=rows, targets=targets, own_shards=own_shards)


def build_plan(
    dataset: Dataset,
    recipe: ViewRecipe,
    card: Card,
    *,
    weights_sha256: str,
    precision: str,
    threads: int = READ_THREADS,
    on_record: Callable[[int, int], None] | None = None,
    **choices: Any,
) -> StorePlan:
    """`estimate_plan` and `complete_plan` in one call, for callers that need no estimate."""
    estimate = estimate_plan(dataset, recipe, card, **choices)
    return complete_plan(
        estimate,
        dataset,
        recipe,
        card,
        weights_sha256=weights_sha256,
        precision=precision,
        threads=threads,
        on_record=on_record,
    )


def needed_bytes(plan: StorePlan, dataset: Dataset) -> int:
    """What the store takes on the disk: rows outside the data set's subset are holes in its files."""
    if dataset.subset is None:
        return plan.total_bytes
    share = len(dataset.subset) / len(dataset.records)
    levels = sum(level_estimate(plan, index) for index in range(len(plan.bins)))
    return plan.total_bytes - int((1 - share) * levels)


def view_count(recipe: ViewRecipe, views: int | None) -> int:
    """V. Raises ValueError for a number that the recipe does not have."""
    fixed = recipe.fixed_count
    if fixed is not None and views not in (None, fixed):
        raise ValueError(f"view recipe {recipe.name} has {fixed} views of a record, asked for {views}")
    count = fixed or (1 if views is None else views)
    if count < 1:
        raise ValueError(f"{count} views of a record, expected 1 or more")
    return count


def store_name(dataset: str, split: str, model: str, codec: str) -> str:
    """The readable part of a store's folder name.

    >>> store_name("ade20k", "training", "timm:swinv2_tiny_window8_256.ms_in1k", "int8")
    'ade20k-training-timm-swinv2_tiny_window8_256.ms_in1k-int8'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", f"{dataset}-{split}-{model}-{codec}".lower())


def survey(
    dataset: Dataset, recipe: ViewRecipe, count: int, seed: int, index: int, known: Sequence[Params] = ()
) -> tuple[str, Params | None]:
    """The sha256 of a record's annotation, and its views where they follow from the annotation.

    Args: known: of each record its views without the truth; of recipes that have `corner`, the crop alone is
    then drawn again.
    """
    key = dataset.records[index].key
    if not recipe.looks_at_truth and (own := _known_digest(dataset, index)) is not None:
        return own, None
    annotation = retried(lambda: dataset.read_annotation(index), f"annotation of {key}")
    digest = hashlib.sha256(annotation).hexdigest()
    if not recipe.looks_at_truth:
        return digest, None
    truth = _truth(dataset, index, annotation)
    corner: Callable[..., Hw] | None = getattr(recipe, "corner", None)
    if known and corner is not None:
        return digest, _moved(corner, dataset, seed, index, truth, known[index])
    return digest, _view_params(dataset, recipe, count, seed, index, truth)


def _known_digest(dataset: Dataset, index: int) -> str | None:
    """Of an annotation that has been read in a survey; None where it has to be read."""
    known: Callable[[int], str | None] | None = getattr(dataset, "annotation_sha256", None)
    return None if known is None else known(index)


def _truth(dataset: Dataset, index: int, annotation: bytes) -> Any:
    try:
        return dataset.parse_annotation(index, annotation)
    except SourceError:  # the record is skipped, with this reason, when its turn comes
        return None


def _params_without_truth(dataset: Dataset, recipe: ViewRecipe, count: int, seed: int) -> list[Params]:
    """Of each record its views, float64 (V, P)."""
    drawn: Callable[..., Params] | None = getattr(recipe, "drawn", None)
    if drawn is None:
        return [_view_params(dataset, recipe, count, seed, i, None) for i in range(len(dataset.records))]
    found: list[Params] = []
    for first in range(0, len(dataset.records), _DRAWN_TOGETHER):
        block = dataset.records[first : first + _DRAWN_TOGETHER]
        keys, sizes = [record.key for record in block], np.array([record.original_hw for record in block])
        views = [drawn(dataset.name, keys, sizes, view, seed) for view in range(count)]
        found += list(np.stack(views, axis=1))
    return found


def _view_params(
    dataset: Dataset, recipe: ViewRecipe, count: int, seed: int, index: int, truth: Any
) -> Params:
    record = dataset.records[index]
    own = range(views_of(recipe, record, count))
    views = (recipe.view(dataset.name, record, view, seed, truth) for view in own)
    return np.array([view.to_params() for view in views])


def _moved(
    corner: Callable[..., Hw], dataset: Dataset, seed: int, index: int, truth: Any, known: Params
) -> Params:
    """The views of a record with their crops where the truth puts them."""
    names, moved = dataset.media.view_params, known.copy()
    resized, valid, crop = (
        [names.index(f"{name}_y"), names.index(f"{name}_x")] for name in ("resized", "valid", "crop")
    )
    for view, row in enumerate(moved):
        sizes = [(int(y), int(x)) for y, x in (row[resized], row[valid])]
        row[crop] = corner(dataset.name, dataset.records[index], view, seed, *sizes, truth)
    return moved


def _draft(
    dataset: Dataset, recipe: ViewRecipe, card: Card, chosen: PlanChoices, params: Sequence[Params]
) -> StorePlan:
    """A plan whose identity lacks annotations, weights and precision."""
    pyramid = _selected(card, chosen.levels)
    rows, sizes = row_table(dataset, params)
    counts = np.bincount(rows.bin).tolist()
    targets = dataset.target_specs(recipe.fixed_count is not None, params)
    bins = tuple(
        planned_bin(
            size,
            count,
            pyramid,
            frames=recipe.frames,
            codec=chosen.codec,
            pixels=chosen.pixels,
            shard_rows=chosen.shard_rows,
            batch_rows=chosen.batch_rows,
            is_small=is_pooled(pyramid, targets) and not chosen.pixels,
        )
        for size, count in zip(sizes, counts, strict=True)
    )
    return StorePlan(
        name=store_name(dataset.name, dataset.split, card.model, chosen.codec),
        identity=draft_identity(dataset, recipe, card, chosen, NOT_READ),
        pyramid=pyramid,
        codec=chosen.codec,
        codec_settings={},
        bins=bins,
        targets=targets,
        view_params=dataset.media.view_params,
        frames=recipe.frames,
        rows=rows,
        pixels=chosen.pixels,
        weights_licence=getattr(card, "licence", None),
        required_features=_features(pyramid, bins, chosen),
        optional_features=NEW_OPTIONAL,
        own_shards=targets_with_own_shards(targets, bins, rows.original_hw),
        data_licence=getattr(dataset, "licence", None),
    )


def draft_identity(
    dataset: Dataset, recipe: ViewRecipe, card: Card, chosen: PlanChoices, annotations: str
) -> dict[str, Any]:
    """An identity without weights and precision; draws no view.

    Args: annotations: as of `dataset_identity`.
    """
    seed = None if recipe.fixed_count else chosen.seed
    return {
        "format": {"name": FORMAT_NAME, "version": FORMAT_VERSION},
        "dataset": dataset_identity(dataset, annotations),
        "views": {**recipe.identity(), "count": view_count(recipe, chosen.views), "seed": seed},
        "decoder": dict(dataset.media.decoder),
        "backbone": card.identity(weights_sha256=NOT_READ, precision=NOT_READ),
        "levels": list(_selected(card, chosen.levels).names),
        "codec": {
            "name": chosen.codec,
            "settings": {},
            **provided_by(find_codec(chosen.codec)[0].package),
            **fit_rule(codec(chosen.codec)),
        },
        "pixels": "differences" if chosen.pixels else False,
    }


def _features(pyramid: PyramidSpec, bins: Sequence[Bin], chosen: PlanChoices) -> tuple[str, ...]:
    """What a reader must know to read the store, beyond its codec."""
    dotted = any("." in name for name in pyramid.names)
    wide = any(b.shard_rows > MAX_SHARD_ROWS for b in bins)
    return (
        *NEW_REQUIRED,
        *[PIXEL_DIFFERENCES] * chosen.pixels,
        *[DOTTED_LEVEL_NAMES] * dotted,
        *[WIDE_SHARDS] * wide,
    )


def _selected(card: Card, levels: Sequence[str] | None) -> PyramidSpec:
    if levels is None:
        return card.pyramid
    unknown = [name for name in levels if name not in card.pyramid]
    if unknown or not levels:
        raise ValueError(f"no level {', '.join(unknown)}; {card.model} has {', '.join(card.pyramid.names)}")
    return card.pyramid.select(levels)
