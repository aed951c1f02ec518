"""The default training and test stores of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.catalog.known_weights import digest_of_weights
from pipelines.catalog.missing_levels import PixelsFrom, are_shallower, holds_pixels, lacking
from pipelines.catalog.moved_stores import stores_of_run
from pipelines.catalog.stores import (
    TEST,
    TRAINING,
    FoundStore,
    StoreQuery,
    describe_store,
    description_file,
    find_store,
    list_stores,
    stored_name,
)
from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.runs.run_folder import RunRecord
from pipelines.runs.same_source import window_rule_of
from pipelines.runs.view_scale import is_of_scale
from stores.errors import IdentityError
from stores.remote.store_url import store_path


def find_training_stores(config: TrainConfig) -> list[Path]:
    """The stores named by the configuration, or the one complete training store that fits it.

    Raises:
        UsageError: none fits, or several do.
        IdentityError: a named store is of another data set or backbone than asked for.
    """
    dataset = None if config.dataset is None else stored_name(config.dataset)
    query = StoreQuery(
        purpose=TRAINING,
        dataset=dataset,
        description=None if dataset == config.dataset else config.dataset,
        split=config.split,
        model=config.model,
        weights_sha256=_digest_of_weights(config),
        levels=config.levels,
    )
    if config.resume and (paths := stores_of_run(config)) is not None:
        return paths
    if config.store is None:
        return [find_store(store_path(config.stores), query, unfinished=config.allow_partial).path]
    for path in config.store:
        found = describe_store(store_path(path))
        for field, wanted in (("dataset", dataset), ("split", config.split), ("model", config.model)):
            there = getattr(found, field)
            if wanted not in (None, there):
                raise IdentityError(field, wanted, there, f"--store {path} does not match")
    return [store_path(path) for path in config.store]


def _digest_of_weights(config: TrainConfig) -> str | None:
    if config.weights is None or config.store is not None:
        return None
    digest = digest_of_weights(store_path(config.stores), config.weights)
    if digest is None:
        raise UsageError(
            f"--weights {config.weights}: no store under {config.stores} was extracted with these weights; "
            "omit the flag, or pass --store"
        )
    return digest


def test_store_query(record: RunRecord, *, split: str | None = None) -> StoreQuery:
    """What a test store of a run must be."""
    return StoreQuery(
        purpose=TEST,
        dataset=record.dataset,
        description=description_file(record.identity["dataset"]),
        split=split,
        model=record.model,
        weights_sha256=record.weights_sha256,
        levels=record.levels,
    )


def fitting_test_stores(
    record: RunRecord,
    folder: Path,
    *,
    split: str | None = None,
    views: str | None = None,
    pixels: PixelsFrom | None = None,
    short_side: int | None = None,
    no_truth: bool = False,
) -> list[FoundStore]:
    """The complete test stores a run can be evaluated on, preferring the scale it was trained at, its own
    codec and single views.

    Where none holds all levels, those whose shallow ones can be recomputed, see
    pipelines/catalog/missing_levels.py.
    """
    query = test_store_query(record, split=split)
    complete = [store for store in list_stores(folder) if store.complete and (store.has_truth or no_truth)]
    if no_truth and split is None:
        complete = [store for store in complete if not store.has_truth] or complete
    found = [store for store in complete if query.fits(store)]
    if not found:
        of_any_levels = replace(query, levels=None)
        found = [
            store
            for store in complete
            if of_any_levels.fits(store)
            and are_shallower(lacking(record.levels, store.levels), store.levels)
            and (pixels == "source" or holds_pixels(store.identity))
        ]
    if views is not None:
        found = [store for store in found if has_views(store.identity["views"], views)]
    rule = window_rule_of(record.identity["backbone"])
    same_rule = [store for store in found if window_rule_of(store.identity["backbone"]) == rule]
    found = same_rule or found
    trained = record.identity["views"]
    same_scale = [s for s in found if is_of_scale(trained, s.identity["views"], short_side)]
    found = same_scale or found
    same_codec = [store for store in found if store.identity["codec"]["name"] == record.codec]
    found = same_codec or found
    single = [store for store in found if store.identity["views"]["recipe"] == "single"]
    return single or found


def has_views(recorded: Mapping[str, Any], views: str) -> bool:
    """Whether a store has the test views of that name. One of clips asked for as `...-ends` does not record
    where they are placed, see extract/views/clip_recipes.py."""
    return bool(recorded["recipe"] == views.removesuffix("-ends")) and not (
        views.endswith("-ends") and "places" in recorded
    )


def find_test_store(
    record: RunRecord,
    folder: Path,
    *,
    split: str | None = None,
    views: str | None = None,
    pixels: PixelsFrom | None = None,
    short_side: int | None = None,
    no_truth: bool = False,
) -> Path:
    """The one of `fitting_test_stores`. Raises UsageError, with the line that makes one, for none or
    several."""
    found = fitting_test_stores(
        *(record, folder),
        split=split, views=views, pixels=pixels, short_side=short_side, no_truth=no_truth,
    )  # fmt: skip
    if len(found) == 1:
        return found[0].path
    if found:
        lines = "".join(f"\n  {store.path}" for store in found)
        raise UsageError(f"{len(found)} test stores match this run; pass --store with one of:{lines}")
    # Late, for an error only: measuring needs no data set.
    from extract.datasets import first_test_split
    from pipelines.catalog.extract_line import extract_line

    query = test_store_query(record, split=split or first_test_split(record.identity["dataset"]))
    line = extract_line(record, split=split, views=views)
    raise UsageError(
        f"no complete {query} under {folder}; make one, with the WEIGHTS and DATA of the training store:"
        f"\n  {line}"
    )
