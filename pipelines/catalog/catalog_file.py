"""The stores under a root as a table, and catalog.json, which lists them for readers over https://.

Entries are hints: what a store holds is decided by its own files when it is opened.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pipelines.catalog.stores import FoundStore, list_stores
from pipelines.errors import UsageError
from pipelines.json_output import write_json
from stores.errors import IncompleteStore, IntegrityError
from stores.reading.committed_store import read_manifest
from stores.remote.object_client import client_of
from stores.remote.opening import bytes_below, open_folder
from stores.remote.store_url import CATALOG, StoreUrl

logger = logging.getLogger(__name__)


def catalog_of(root: Path) -> list[dict[str, Any]]:
    """An entry for each store directly under a folder or URL, by name; of a web server those of catalog.json.

    Raises RemoteError where the server refuses, or a web server has no catalog.
    """
    if isinstance(root, StoreUrl) and not root.is_writable:
        names = {path.name for path in root.iterdir()}  # refuses what is no catalog
        content = json.loads((root / CATALOG).read_bytes())["stores"]
        return [entry for entry in content if entry["folder"] in names]
    return [_entry(store) for store in list_stores(root)]


def _entry(store: FoundStore) -> dict[str, Any]:
    content = manifest = None
    try:
        found, manifest = read_manifest(open_folder(store.path))
        content = found.content_digest
    except IncompleteStore:
        pass
    except IntegrityError as error:
        logger.warning("%s", error)
    views = store.identity.get("views", {})
    return {
        "folder": store.path.name,
        "dataset": store.dataset,
        "split": store.split,
        "model": store.model,
        "weights_sha256": store.weights_sha256,
        "levels": list(store.levels),
        "codec": store.identity["codec"]["name"],
        "views": views.get("count", views.get("recipe")),
        "bytes": bytes_below(store.path),
        "complete": manifest is not None,
        "content_digest": content,
        "manifest_digest": manifest,
    }


def write_catalog(root: Path) -> list[dict[str, Any]]:
    """Writes catalog.json with the complete stores under a folder or URL; returns their entries.

    Raises UsageError for a root that is read only.
    """
    if isinstance(root, StoreUrl) and not root.is_writable:
        raise UsageError(f"{root} is read only: write the catalog where the stores were copied to")
    entries = [entry for entry in catalog_of(root) if entry["complete"]]
    content = {"stores": entries}
    if isinstance(root, StoreUrl):
        client_of(root.place).put((root / CATALOG).key, json.dumps(content, indent=1).encode())
    else:
        write_json(root / CATALOG, content)
    return entries
