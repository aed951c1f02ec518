"""Engine of xarray for stores: xarray's own of Zarr, guessed for folders that are stores.

xarray guesses `engine="zarr"` by the ending `.zarr` of a name alone. As the entry point `permafrost` of
`xarray.backends` this one is asked too, so that `xarray.open_datatree(store)` works wherever Permafrost is
installed. Elsewhere pass `engine="zarr"`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from xarray.backends.zarr import ZarrBackendEntrypoint

_METADATA, _PLAN = "zarr.json", "plan.json"
_DEEPEST = 4
"""Groups between a store and its innermost one: bins, a bin, levels, a level."""


class StoreBackend(ZarrBackendEntrypoint):
    """Reads as `engine="zarr"` does: nothing is compared with the manifest."""

    description = "Open stores of Permafrost as Zarr, unchecked; Store.xarray() compares checksums"
    url = ""

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is the folder of a store, or of a group in one."""
        if not isinstance(filename_or_obj, str | os.PathLike) or "://" in str(filename_or_obj):
            return False
        path = Path(filename_or_obj)
        if not (path / _METADATA).is_file():
            return False
        return any((folder / _PLAN).is_file() for folder in (path, *path.absolute().parents[:_DEEPEST]))
