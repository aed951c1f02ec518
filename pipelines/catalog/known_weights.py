"""weights.json: which --weights value produced each digest.

A store's identity holds the digest of its backbone's weights but not where to get them, since a store holds
no path. `extract` records the value here, beside the stores, so that `predict` and `evaluate --live` find
the backbone without being given it again.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from pathlib import Path

from pipelines.json_output import write_json
from stores.remote.object_client import client_of
from stores.remote.store_url import StoreUrl

FILE_NAME = "weights.json"


def remember_weights(stores: Path, weights_sha256: str, weights: str) -> None:
    """Records that --weights `weights` produced this digest; a path is recorded as absolute.

    Nothing is recorded in a folder that cannot be written, such as one with complete stores to read.
    """
    known = _read(stores)
    spec = _noted(weights)
    if known.get(weights_sha256) == spec:
        return
    if isinstance(stores, StoreUrl):
        known = {**known, weights_sha256: spec}
        client_of(stores.place).put((stores / FILE_NAME).key, json.dumps(known, indent=1).encode())
        return
    try:
        stores.mkdir(parents=True, exist_ok=True)
        write_json(stores / FILE_NAME, {**known, weights_sha256: spec})
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def known_weights(stores: Path, weights_sha256: str) -> str | None:
    """The --weights value of this digest; None if it was not recorded."""
    return _read(stores).get(weights_sha256)


def first_known_weights(folders: Iterable[Path], weights_sha256: str) -> str | None:
    """As `known_weights`, from the first of several folders that has it."""
    return next(filter(None, (known_weights(folder, weights_sha256) for folder in folders)), None)


def digest_of_weights(stores: Path, weights: str) -> str | None:
    """The digest that --weights `weights` produced in an extraction into `stores`; None if not recorded."""
    spec = _noted(weights)
    return next((digest for digest, known in _read(stores).items() if known == spec), None)


def _noted(weights: str) -> str:
    return weights if _is_name(weights) else str(Path(weights).expanduser().resolve())


def _is_name(weights: str) -> bool:
    return weights == "timm" or weights.startswith("random:")


def _read(stores: Path) -> dict[str, str]:
    try:
        found = json.loads((stores / FILE_NAME).read_text())
    except (OSError, ValueError):  # a convenience: without it --weights must be passed
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
