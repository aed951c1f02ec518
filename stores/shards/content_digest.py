"""Digests of what rows hold, independent of how it is laid out.

Of a row: the SHA-256 over, for each of its arrays in the order of their paths below the bin, a line of the
BLAKE3 of its decoded bytes (without the feature `blake3` their SHA-256) and the path. Of a store: the SHA-256
over its canonical identity without the precision, a line break, and for each written row in plan order a line
of its key, view, parameters, outcome and digest. Shard size, batch rows, compression, packing and writer do
not enter. The bytes of a ragged row are its own, without the zeros up to the cap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from stores.format.canonical_json import canonical_json
from stores.format.plan import StorePlan


def row_digest(arrays: Mapping[str, bytes]) -> bytes:
    """Of one row, 32 bytes; `arrays` are the digests of its arrays by path below the bin.

    >>> row_digest({"levels/p4/q": bytes(32)}).hex()[:8]
    'b620f47c'
    """
    lines = (f"{digest.hex()} {path}\n" for path, digest in sorted(arrays.items()))
    return hashlib.sha256("".join(lines).encode()).digest()


def content_digest(plan: StorePlan, rows: Iterable[tuple[int, int, bytes]]) -> str:
    """Of a store, 64 hex digits.

    Args:
        plan: of the store.
        rows: plan row, outcome code and digest of every written row, in plan order.
    """
    table = plan.rows
    total = hashlib.sha256(canonical_json(without_precision(plan.identity)) + b"\n")
    for row, outcome, digest in rows:
        params = table.params[row].astype("<f8").tobytes().hex()
        fields = json.dumps(table.keys[row], ensure_ascii=False), int(table.view[row]), params or "-", outcome
        total.update(f"{' '.join(map(str, fields))} {digest.hex()}\n".encode())
    return total.hexdigest()


def without_precision(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity without that of the forward pass, which does not change what a row is of.

    >>> without_precision({"backbone": {"model": "b", "precision": "fp16"}})
    {'backbone': {'model': 'b'}}
    """
    backbone = identity.get("backbone")
    if not isinstance(backbone, Mapping):
        return dict(identity)
    return {**identity, "backbone": {name: value for name, value in backbone.items() if name != "precision"}}
