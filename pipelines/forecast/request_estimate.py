"""Requests and bytes of an extraction into object storage, and of reading its rows once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.forecast.planned_extraction import Extraction
from pipelines.units import gigabytes
from stores.format.array_spec import ArraySpec
from stores.format.arrays import own_arrays, packed_arrays
from stores.remote.block_cache import BLOCK_BYTES, block_cache
from stores.remote.object_client import PART_BYTES
from stores.remote.store_url import StoreUrl

_OF_A_FILE = 3
"""Copy to its place, deletion of the first copy, look at its size."""
_OF_A_UNIT = 12
"""Claim, counter, receipt, plan and manifest of a work unit, looked at and written."""


def request_figures(extraction: Extraction) -> dict[str, int]:
    """Of stores at a URL: requests and bytes written by the extraction, and read when every row is read for
    the first time; empty for a folder.

    Compressed arrays count with their uncompressed size: an upper bound.
    """
    if not isinstance(extraction.stores, StoreUrl):
        return {}
    plan = extraction.estimate.plan
    written, blocks, rows = _OF_A_UNIT * len(plan.shards()), 0, 0
    for index in range(len(plan.bins)):
        for spec in (*own_arrays(plan, index).values(), *packed_arrays(plan, index).values()):
            written += spec.shards * (_OF_A_FILE + _parts(_shard_bytes(spec)))
        for name, spec in (*own_arrays(plan, index).items(), *packed_arrays(plan, index).items()):
            if name.startswith("levels/"):
                blocks += spec.shards * -(-_shard_bytes(spec) // BLOCK_BYTES)
                rows += 0 if spec.packed else spec.shape[0]
    return {
        "extraction_requests": written,
        "extraction_bytes": extraction.estimate.total_bytes,
        "first_read_requests": blocks,
        "first_read_bytes": sum(extraction.estimate.bytes_by_level.values()),
        "uncached_requests": rows,
    }


def fits_block_cache(extraction: Extraction) -> bool:
    """Whether the block cache of this machine may hold the whole store."""
    return extraction.estimate.total_bytes <= block_cache().bound


def _shard_bytes(spec: ArraySpec) -> int:
    return min(spec.shard_rows or 1, spec.shape[0]) * spec.stored_row_bytes + spec.index_bytes


def _parts(size: int) -> int:
    """Requests of an upload: large ones are begun, sent in parts and completed."""
    return 1 if size <= PART_BYTES else 2 + -(-size // PART_BYTES)


def request_lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures in words; none for a folder."""
    if not figures:
        return []
    return [
        f"  requests  extraction: about {figures['extraction_requests']:,}, "
        f"{gigabytes(figures['extraction_bytes'])} uploaded",
        f"  reading   all rows for the first time: about {figures['first_read_requests']:,} requests, "
        f"{gigabytes(figures['first_read_bytes'])}, which fill the block cache; later epochs none, without a "
        f"cache about {figures['uncached_requests']:,} for all rows",
    ]
