"""Expected state of a store after a fault: as without a fault, or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores.checks.verify import gc_orphans, verify_store
from stores.format.manifest import MANIFEST_NAME
from stores.reading.reader import Store, open_store
from stores.shards.receipt_pack import PACK_PATH
from tests.faults.made_stores import Array, MadeRows

WRITERS_OWN = ("writer", "generation")
"""Fields of a receipt that differ between runs: the writer's id, and how often the shard was written."""


def store_files(path: Path) -> dict[str, bytes]:
    """Every file of a folder by its path from there."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            with open(full, "rb") as file:
                found[os.path.relpath(full, path)] = file.read()
    return found


def without_writers(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The files of a store without everything that depends on the process that wrote it.

    Receipts hold their writer's id and generation, and the manifest a digest of them; a superseded receipt
    stays beside the valid one. All other bytes must be equal in every extraction of a plan.
    """
    counted = {(b, s): n for b, s, n in json.loads(files[MANIFEST_NAME])["generations"]}
    found: dict[str, Any] = {}
    for path, data in files.items():
        if path == MANIFEST_NAME:
            content = json.loads(data)
            content["files"].pop(PACK_PATH, None)
            found[path] = {k: v for k, v in content.items() if k not in ("receipts_sha256", "generations")}
        elif path == PACK_PATH:
            for line in data.splitlines():
                content = json.loads(line)
                receipt = {k: v for k, v in content.items() if k not in WRITERS_OWN}
                # Without its digest: chunks stand in the order of their arrival.
                receipt["spool"] = (receipt.get("spool") or {}).get("crc32c")
                found[f"receipt {content['bin'], content['shard']}"] = receipt
        elif path.startswith("receipts/"):
            content = json.loads(data)
            shard = content["bin"], content["shard"]
            if content["generation"] == counted.get(shard, 0):
                found[f"receipt {shard}"] = {k: v for k, v in content.items() if k not in WRITERS_OWN}
        else:
            found[path] = data
    return found


def read_row(store: Store, row: int) -> dict[str, Array]:
    """Every array of one row, by its path below the bin's folder."""
    found: dict[str, Array] = {}
    for level, arrays in store.read_encoded([row]).items():
        found |= {f"levels/{level}/{kind}": a[0] for kind, a in arrays.items()}
    found |= {f"targets/{name}": a for name, a in store.read_targets([row])[0].items()}
    if store.plan.pixels:
        found["pixels"] = store.read_pixels([row])[0]
    return found


def assert_equal_rows(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def assert_reads_back(path: Path, rows: MadeRows) -> None:
    """Every row of the store equals the plain numpy copy."""
    assert_holds(path, list(rows.copies().values()))


def assert_holds(path: Path, copies: Sequence[Mapping[str, Array]]) -> None:
    with open_store(path, threads=1) as store:
        assert len(store) == len(copies)
        for row, wanted in enumerate(copies):
            assert_equal_rows(read_row(store, row), wanted)


def assert_finished(path: Path, rows: MadeRows, clean: Mapping[str, Any]) -> None:
    """The store is whole, has nothing beside it after gc, and equals `clean`, a run without faults."""
    gc_orphans(path, delete=True)
    assert without_writers(store_files(path)) == clean
    report = verify_store(path, full=True)
    assert report.ok, report.problems
