"""`gc`: lists, and with --delete removes, files left in stores by interrupted extractions."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipelines.catalog.stores import DamagedStores, look_at_each, require_on_disk, stores_asked_for
from pipelines.config import GcConfig
from pipelines.units import gigabytes
from stores.checks.verify import gc_orphans

_AT_A_URL = (
    "what interrupted writers left is below work/ of the store and is removed when the extraction is "
    "completed (repeat its `extract` command); of one that is given up, delete the store with the tools of "
    "the service, such as `aws s3 rm --recursive`"
)


def run(config: GcConfig) -> dict[str, Any]:
    """Prints every orphaned file of one store, or of each under the folder; DamagedStores at the end."""
    paths = stores_asked_for(config.store, config.stores)
    for path in paths:
        require_on_disk(path, "gc", _AT_A_URL)
    found, damaged = look_at_each(paths, partial(gc_orphans, delete=config.delete))
    orphans = [orphan for of_store in found for orphan in of_store]
    for orphan in orphans:
        print(f"{orphan.path}  {gigabytes(orphan.bytes)}")
    size = sum(orphan.bytes for orphan in orphans)
    done = "removed" if config.delete else "found; --delete removes them"
    print(f"{len(orphans)} orphaned files, {gigabytes(size)}, {done}" if orphans else "no orphaned files")
    summary = {
        "orphans": [{"path": str(orphan.path), "bytes": orphan.bytes} for orphan in orphans],
        "bytes": size,
        "deleted": config.delete,
        "damaged": damaged,
    }
    if damaged:
        raise DamagedStores(summary)
    return summary
