"""`catalog`: the stores under a folder or URL, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.catalog.catalog_file import catalog_of, write_catalog
from pipelines.catalog.stores import stores_folder
from pipelines.config import CatalogConfig
from pipelines.units import gigabytes
from stores.errors import NoSuchStore
from stores.format.printable import escaped
from stores.remote.store_url import CATALOG


def run(config: CatalogConfig) -> dict[str, Any]:
    """Prints the stores; writes catalog.json with `write`. Raises NoSuchStore where there are none."""
    root = stores_folder(config.stores)
    entries = write_catalog(root) if config.write else catalog_of(root)
    if not entries:
        raise NoSuchStore(f"{root} holds no {'complete ' if config.write else ''}store")
    for entry in entries:
        _print(entry)
    if config.write:
        print(f"written: {root / CATALOG}")
    return {"stores": entries}


def _print(entry: Mapping[str, Any]) -> None:
    state = "complete" if entry["complete"] else "unfinished"
    size = "unknown size" if entry["bytes"] is None else gigabytes(entry["bytes"])
    print(escaped(f"{entry['folder']}: {state}, {size}"))
    weights = str(entry["weights_sha256"])[:12]
    print(escaped(f"  {entry['dataset']} {entry['split']}, {entry['model']} (weights {weights}), "
                  f"{entry['codec']}, views {entry['views']}"))  # fmt: skip
    content = entry["content_digest"] or "not recorded"
    print(escaped(f"  levels {', '.join(entry['levels'])}; content {content}"))
