"""Features of the format by name: how a store is laid out beyond v1, and which of them new stores have."""

from __future__ import annotations

from stores.format.pixel_differences import PIXEL_DIFFERENCES

NAMES = "names"
"""Dimension names with one length in each group, attributes that say how codes are decoded, a README.md."""
CONSOLIDATED = "consolidated"
"""All metadata repeated in the root's zarr.json, where that stays below MAX_CONSOLIDATED_BYTES."""
FLAT_KEYS = "flat-keys"
"""Chunk keys with the separator ".": no folder a shard."""
CHUNK_DIGESTS = "chunk-digests"
"""A shard file's digest is taken over the SHA-256 of its chunks, and rows have digests of their content."""
BLAKE3 = "blake3"
"""With `chunk-digests`: chunks and rows are digested by BLAKE3, not by SHA-256, in a third of the time."""
PACKED = "packed"
"""Small arrays of many work units in few shards, all receipts in one file; see stores.format.packing."""
FITTED_CODEC = "fitted-codec"
"""The codec was fitted to sample rows; what it learned stands in arrays that plan.json binds by a digest."""
DOTTED_LEVEL_NAMES = "dotted-level-names"
"""A level's name may hold a dot, such as `s3.b5`."""
WIDE_SHARDS = "wide-shards"
"""A shard may have up to 65,536 rows instead of 1024: of pooled vectors, whose rows are a few kilobytes."""

LAYOUT = frozenset({NAMES, CONSOLIDATED, FLAT_KEYS, CHUNK_DIGESTS, BLAKE3, PACKED, WIDE_SHARDS, FITTED_CODEC})
"""Features that change how content is laid out and not what it is: no part of an identity. A store that was
begun with some of them is continued with the same."""
KNOWN_REQUIRED = frozenset(
    {
        *(FLAT_KEYS, CHUNK_DIGESTS, BLAKE3, PACKED),
        *(PIXEL_DIFFERENCES, DOTTED_LEVEL_NAMES, WIDE_SHARDS, FITTED_CODEC),
    }
)
"""Required features that this program reads, beside those of codecs."""

NEW_REQUIRED = (BLAKE3, CHUNK_DIGESTS, FLAT_KEYS, PACKED)
NEW_OPTIONAL = (NAMES, CONSOLIDATED)
"""Layout of new stores."""

MAX_CONSOLIDATED_BYTES = 1_000_000
