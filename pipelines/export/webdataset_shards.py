"""Rows of a store as sharded tar files that webdataset streams, for training elsewhere.

A sample has the row's number as its key, and in NumPy's format each array of the codec (`p4.q.npy`,
`p4.scale.npy`), each target (`target.labels.npy`) and pixels; `json` says which record and view it is. The
codes are those of the store: `dataset.json` beside the tars, written last, says how they are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from pipelines.config import ExportConfig
from pipelines.errors import UsageError
from pipelines.json_output import write_json
from pipelines.units import gigabytes
from stores.codecs import codec
from stores.reading.reader import Store, open_store
from stores.remote.store_url import store_path

LISTING = "dataset.json"
_ROWS_AT_ONCE = 16
_TAR_BYTES = 512 << 20
"""512 MiB, after which the next tar is begun."""
_MOST_ROWS = 10_000
"""Of a tar."""


def export_webdataset(config: ExportConfig) -> dict[str, Any]:
    """Writes the tars and LISTING into the folder `--out`.

    Raises UsageError without a store, or for a folder with files in it; what reading raises.
    """
    if config.store is None:
        raise UsageError("--format webdataset: pass --store with the store whose rows are written")
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: expected a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    with open_store(store_path(config.store)) as store:
        names: list[str] = []
        writer = webdataset.ShardWriter(
            f"{out}/rows-%06d.tar",
            maxcount=_MOST_ROWS,
            maxsize=_TAR_BYTES,
            post=lambda path: names.append(Path(path).name),
            mtime=0,
            verbose=0,
        )
        with writer:
            for sample in _samples(store):
                writer.write(sample)
        size = sum((out / name).stat().st_size for name in names)
        write_json(out / LISTING, _listing(store, names))
        tars = "1 tar" if len(names) == 1 else f"{len(names)} tars"
        print(f"{out}: {len(store)} rows in {tars}, {gigabytes(size)}")
        return {"out": str(out), "rows": len(store), "tars": names, "bytes": size}


def _listing(store: Store, names: list[str]) -> dict[str, Any]:
    return {
        "tars": names,
        "rows": len(store),
        "store": store.path.name,
        "manifest_digest": store.manifest_digest,
        "codec": store.codec,
        "decode": getattr(codec(store.codec), "formula", None),
        "levels": store.pyramid.to_json(),
        "identity": store.identity,
    }


def _samples(store: Store) -> Iterator[dict[str, Any]]:
    for first in range(0, len(store), _ROWS_AT_ONCE):
        rows = np.arange(first, min(first + _ROWS_AT_ONCE, len(store)))
        for name in dict.fromkeys(store.bins[row] for row in rows):
            yield from _of_bin(store, [int(row) for row in rows if store.bins[row] == name])


def _of_bin(store: Store, rows: list[int]) -> Iterator[dict[str, Any]]:
    encoded, targets = store.read_encoded(rows), store.read_targets(rows)
    pixels = store.read_pixels(rows) if store.plan.pixels else None
    for at, row in enumerate(rows):
        arrays = {f"{lv}.{kind}.npy": a[at] for lv, kinds in encoded.items() for kind, a in kinds.items()}
        arrays |= {f"target.{name}.npy": array for name, array in targets[at].items()}
        if pixels is not None:
            arrays["pixels.npy"] = pixels[at]
        yield {
            "__key__": f"{row:09d}",
            "json": {
                "row": row,
                "record": store.keys[row],
                "view": int(store.views[row]),
                "params": dict(zip(store.plan.view_params, store.params[row].tolist(), strict=True)),
                "valid_hw": store.valid_hw[row].tolist(),
                "padded_hw": store.padded_hw[row].tolist(),
                "original_hw": store.original_hw[row].tolist(),
            },
            **{name: _npy(array) for name, array in arrays.items()},
        }


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
