"""Folder of a data set that a store was extracted from, as its log recorded it."""

from __future__ import annotations

from pathlib import Path

from stores.remote.opening import writer_logs
from stores.remote.store_url import store_path
from stores.work.log import read_events


def recorded_data(store: str | Path) -> str | None:
    """The absolute folder that was read last; None where no log names one that is still there.

    Logs are no part of a store: without them, as of a copied store, the folder must be passed.
    """
    found = [
        (float(event["time"]), str(event["data"]))
        for path in writer_logs(store_path(store))
        for event in read_events(path)
        if event.get("event") == "begin" and event.get("data")
    ]
    there = [data for _, data in sorted(found) if Path(data).exists()]
    return there[-1] if there else None
