"""The default stores of a probe: one of a training split, and a test store of the same features."""

from __future__ import annotations

from pathlib import Path

from pipelines.catalog.known_weights import digest_of_weights
from pipelines.catalog.stores import (
    TEST,
    TRAINING,
    FoundStore,
    StoreQuery,
    describe_store,
    find_store,
    list_stores,
    stored_name,
)
from pipelines.config import ProbeConfig
from pipelines.errors import UsageError
from stores.remote.store_url import store_path

_AS_TESTED = "centre"
"""The view recipe of a training split that shows records as tests do."""


def find_probe_stores(config: ProbeConfig) -> tuple[Path, Path]:
    """The store to learn from and the one to measure on.

    Raises UsageError where none fits, or several do; NoSuchStore for one that is named and not there.
    """
    train = describe_store(store_path(config.store)) if config.store else _training_store(config)
    if config.val_store:
        return train.path, describe_store(store_path(config.val_store)).path
    wanted = StoreQuery(
        purpose=TEST,
        dataset=train.dataset,
        model=train.model,
        weights_sha256=train.weights_sha256,
        levels=train.levels,
    )
    return train.path, find_store(store_path(config.stores), wanted).path


def _training_store(config: ProbeConfig) -> FoundStore:
    digest = None
    if config.weights is not None:
        digest = digest_of_weights(store_path(config.stores), config.weights)
        if digest is None:
            raise UsageError(
                f"--weights {config.weights}: no store under {config.stores} was extracted with these weights"
            )
    query = StoreQuery(
        purpose=TRAINING,
        dataset=None if config.dataset is None else stored_name(config.dataset),
        model=config.model,
        weights_sha256=digest,
    )
    found = [
        store for store in list_stores(store_path(config.stores)) if store.complete and query.fits(store)
    ]
    as_tested = [store for store in found if store.identity["views"]["recipe"] == _AS_TESTED]
    if len(as_tested) == 1:
        return as_tested[0]
    return find_store(store_path(config.stores), query)
