"""The stores of a run that was moved, or whose stores were: recorded paths are hints, identities decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.catalog.stores import PLAN, FoundStore, describe_store, list_stores
from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.runs.run_folder import RunRecord, StoreReference, read_run
from pipelines.runs.settings_history import recorded_settings
from stores.errors import StoreError
from stores.format.canonical_json import identity_digest
from stores.remote.store_url import store_path

_MOST_FOLDERS = 1000
"""Looked into beside a run's folder."""


def stores_of_run(config: TrainConfig) -> list[Path] | None:
    """The training stores of the run that is resumed, wherever they are now.

    None where other stores were asked for, whose identity is compared later. Raises UsageError where one is
    not found under --stores, where it was, or beside the run's folder.
    """
    folder = Path(config.run or "")
    recorded = recorded_settings(folder).get("store")
    if config.store is None or list(config.store) != recorded:
        return None
    record = read_run(folder)
    return [_located(reference, record, folder, config.stores) for reference in record.stores]


def stores_folder_of(record: RunRecord, folder: Path) -> Path:
    """The folder of the stores that a run is measured on: the recorded one, or one beside the run's folder
    that holds stores of its data set and backbone.

    Args:
        record: of the run.
        folder: of the run.
    """
    recorded = store_path(record.stores_folder)
    if recorded.is_dir():
        return recorded
    for place in _beside(folder):
        if any(_is_of(store, record) for store in list_stores(place)):
            return place
    return recorded


def located_test_store(path: str, record: RunRecord, folder: Path) -> Path:
    """A test store by its recorded path, or one of that name where the run's stores are now."""
    named = store_path(path)
    places = [store_path(record.stores_folder), *_beside(folder)]
    return next((found for found in (named, *(p / named.name for p in places)) if _has_plan(found)), named)


def _is_of(store: FoundStore, record: RunRecord) -> bool:
    return (store.dataset, store.weights_sha256) == (record.dataset, record.weights_sha256)


def _located(reference: StoreReference, record: RunRecord, folder: Path, stores: str) -> Path:
    """Raises UsageError where no store of that identity is found."""
    hint = store_path(reference.path)
    places = [store_path(stores), store_path(record.stores_folder), *_beside(folder)]
    by_name = (path for path in (hint, *(place / hint.name for place in places)))
    for path in by_name:
        if _has_identity(path, reference.identity_digest):
            return path
    for place in places:
        for store in list_stores(place):
            if identity_digest(store.identity) == reference.identity_digest:
                return store.path
    if _has_plan(hint):
        return hint  # damaged, or another one: it is named when it is opened
    raise UsageError(
        f"the store {hint.name} of the run {folder} (identity {reference.identity_digest[:8]}) is neither at "
        f"{hint} nor under {stores} nor beside the run; pass --stores with the folder that holds it"
    )


def _beside(folder: Path) -> Iterator[Path]:
    """The two folders above a run's, each with the folders in it."""
    for above in list(folder.resolve().parents)[:2]:
        yield above
        try:
            inside = sorted(path for path in above.iterdir() if path.is_dir())
        except OSError:
            continue
        yield from inside[:_MOST_FOLDERS]


def _has_plan(path: Path) -> bool:
    return (path / PLAN).is_file()


def _has_identity(path: Path, digest: str) -> bool:
    try:
        return _has_plan(path) and identity_digest(describe_store(path).identity) == digest
    except StoreError:
        return False
