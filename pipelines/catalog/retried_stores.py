"""`extract --retry-skipped`: which store is tried again, and what of it is copied."""

from __future__ import annotations

import logging
from pathlib import Path

from extract.extractor.retry_skipped import RETRY_OF, copy_sound_shards, retry_plan, skipped_rows
from pipelines.catalog.stores import MANIFEST, list_stores, manifest_sha256
from pipelines.errors import UsageError
from stores.format.plan import StorePlan
from stores.reading.reader import open_store
from stores.writing.writer import StoreWriter

logger = logging.getLogger(__name__)


def plan_of_retry(root: Path) -> StorePlan:
    """The plan of the store that takes the place of the complete one at `root`.

    Raises UsageError where that one is not complete or skipped nothing.
    """
    if not (root / MANIFEST).exists():
        raise UsageError(
            f"--retry-skipped: {root} is not complete; first run the same command without --retry-skipped"
        )
    with open_store(root) as store:
        reasons = skipped_rows(store)
        if not reasons:
            raise UsageError(f"--retry-skipped: {root} has no skipped rows, so there is nothing to try again")
        logger.info("%s: %d skipped rows are tried again in a second store", root, len(reasons))
        return retry_plan(store)


def fill_from_retried(stores: Path, writer: StoreWriter) -> int:
    """Copies what was not skipped from the store whose manifest the identity of `writer` names; returns the
    rows copied."""
    digest = writer.plan.identity[RETRY_OF]
    for found in list_stores(stores):
        if found.complete and manifest_sha256(found.path) == digest:
            with open_store(found.path) as store:
                try:
                    return copy_sound_shards(store, writer)
                finally:
                    writer.claims.release_all()
    return 0
