"""The content digest: the same rows in several layouts, and computed here without the writer."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from stores.checks.content import content_digest_of
from stores.format.canonical_json import canonical_json
from stores.format.features import BLAKE3, CHUNK_DIGESTS, FLAT_KEYS, PACKED
from stores.format.pixel_differences import PIXEL_DIFFERENCES, differences
from stores.format.plan import Bin
from stores.reading.committed_store import read_committed
from tests.faults.made_stores import NEW_LAYOUT, P4, P5, MadeRows, extract, places, small_plan
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this module

BINS = (
    Bin(height_px=32, width_px=64, rows=9, shard_rows=2, batch_rows=2),
    Bin(height_px=64, width_px=32, rows=5, shard_rows=2, batch_rows=1),
)
PLAN = small_plan(bins=BINS, levels=(P4, P5), pixels=True, required_features=(PIXEL_DIFFERENCES,))
SKIPPED = frozenset({(0, 3), (1, 1)})


def layout(plan_features: tuple[str, ...], shard_rows: int, own: tuple[str, ...] = ()) -> MadeRows:
    bins = tuple(replace(b, shard_rows=shard_rows, batch_rows=shard_rows) for b in BINS)
    required = (*plan_features, PIXEL_DIFFERENCES)
    return MadeRows(replace(PLAN, bins=bins, required_features=required, own_shards=own), skipped=SKIPPED)


LAYOUTS = {
    "SHA-256, packed": layout((CHUNK_DIGESTS, FLAT_KEYS, PACKED), 2),
    "packed": layout(NEW_LAYOUT["required_features"], 2),
    "larger shards": layout((CHUNK_DIGESTS, PACKED), 8, own=("labels",)),
    "unpacked": layout((CHUNK_DIGESTS, FLAT_KEYS), 4),
    "BLAKE3, unpacked": layout((BLAKE3, CHUNK_DIGESTS), 4),
}


def by_hand(rows: MadeRows, hashed: Callable[[bytes], Any] = hashlib.sha256) -> str:
    """As docs/store-format.md words it."""
    plan = rows.plan
    total = hashlib.sha256(canonical_json(plan.identity) + b"\n")
    copies = rows.copies()
    for row, place in enumerate(places(plan)):
        if place not in copies:
            continue
        lines = ""
        for name, array in sorted(copies[place].items()):
            stored = differences(array) if name == "pixels" else array
            lines += f"{hashed(np.ascontiguousarray(stored).tobytes()).hexdigest()} {name}\n"
        params = plan.rows.params[row].tobytes().hex()
        key, view = json.dumps(plan.rows.keys[row]), plan.rows.view[row]
        digest = hashlib.sha256(lines.encode()).hexdigest()
        total.update(f"{key} {view} {params} 0 {digest}\n".encode())
    return total.hexdigest()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_the_same(tmp_path: Path, name: str) -> None:
    rows = LAYOUTS[name]
    extract(tmp_path, rows)
    store = read_committed(tmp_path / rows.plan.folder_name)
    hashed = blake3 if BLAKE3 in rows.plan.features else hashlib.sha256
    assert store.manifest.content_digest == by_hand(MadeRows(PLAN, skipped=SKIPPED), hashed)
    assert content_digest_of(tmp_path / rows.plan.folder_name) == store.manifest.content_digest


def test_of_an_old_store_it_is_computed(tmp_path: Path) -> None:
    old = MadeRows(PLAN, skipped=SKIPPED)
    extract(tmp_path, old)
    path = tmp_path / old.plan.folder_name
    assert read_committed(path).manifest.content_digest is None
    assert content_digest_of(path) == by_hand(old)


def test_another_value_key_or_identity_changes_it(tmp_path: Path) -> None:
    found = {by_hand(MadeRows(PLAN, skipped=SKIPPED))}
    other = replace(PLAN, identity={**PLAN.identity, "backbone": {"precision": "fp16", "model": "other"}})
    for name, rows in {
        "value": MadeRows(PLAN, seed=1, skipped=SKIPPED),
        "skipped": MadeRows(PLAN, skipped=frozenset({(0, 3)})),
        "identity": MadeRows(other, skipped=SKIPPED),
    }.items():
        extract(tmp_path / name, rows)
        found.add(content_digest_of(tmp_path / name / rows.plan.folder_name))
    assert len(found) == 4


def test_the_precision_is_no_part_of_it(tmp_path: Path) -> None:
    found = set()
    for precision in ("fp16", "fp32"):
        identity = {**PLAN.identity, "backbone": {"precision": precision, "model": "one"}}
        rows = MadeRows(replace(PLAN, identity=identity), skipped=SKIPPED)
        extract(tmp_path, rows)
        found.add(content_digest_of(tmp_path / rows.plan.folder_name))
    assert len(found) == 1
