"""Log of a store's extraction as a page shows it: commands, and throughput shard by shard."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stores.remote.opening import writer_logs
from stores.work.log import read_events

MAX_FILES = 64
"""Writers whose logs are read, the last ones."""
_STAGES = ("decode", "write")


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Between two finished shards of one writer."""

    minutes: float
    """Since the first event of all writers."""
    images_per_s: float
    share: Mapping[str, float]
    """decode, backbone, write: what the backbone's thread spent, from 0 to 1; empty in logs of earlier
    versions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreLog:
    """What the writers of a store logged."""

    commands: Sequence[str]
    """In the order of their start, each once."""
    intervals: Sequence[Sequence[Interval]]
    """Of each writer."""
    last_begin: Mapping[str, Any] = field(default_factory=dict)
    """The first event of the run that began last; empty without one."""


def read_store_log(folder: Path) -> StoreLog:
    """Reads `log/` of a store; empty without one. Lines that are no events are left out."""
    found = writer_logs(folder)[-MAX_FILES:]
    files = [events for path in found if (events := list(read_events(path)))]
    files.sort(key=lambda events: float(events[0]["time"]))
    began = float(files[0][0]["time"]) if files else 0.0
    begins = [event for events in files for event in events if event.get("event") == "begin"]
    commands = [
        shlex.join(["python", "-m", "pipelines", *map(str, event["command"][1:])])
        for event in begins
        if isinstance(event.get("command"), list)
    ]
    return StoreLog(
        commands=list(dict.fromkeys(commands)),
        intervals=[made for events in files if (made := list(_intervals(events, began)))],
        last_begin=max(begins, key=lambda event: float(event["time"]), default={}),
    )


def _intervals(events: Sequence[Mapping[str, Any]], began: float) -> Iterator[Interval]:
    rows, seconds, waited = 0, 0.0, dict.fromkeys(_STAGES, 0.0)
    for event in events:
        if event.get("event") != "shard":
            continue
        try:
            now_rows, now_s = int(event["rows_done"]), float(event["seconds"])
            now_waited = {stage: float(event["waited_s"][stage]) for stage in _STAGES}
        except (KeyError, TypeError, ValueError):
            now_waited = {}
        if now_s <= seconds or now_rows < rows:  # another run of the same process
            rows, seconds, waited = 0, 0.0, dict.fromkeys(_STAGES, 0.0)
        length = now_s - seconds
        if length <= 0:
            continue
        share = {stage: (now_waited[stage] - waited[stage]) / length for stage in now_waited}
        if share:
            share = {"decode": share["decode"], "backbone": 1 - sum(share.values()), "write": share["write"]}
        yield Interval(
            minutes=(float(event["time"]) - began) / 60,
            images_per_s=(now_rows - rows) / length,
            share=share,
        )
        rows, seconds, waited = now_rows, now_s, now_waited or waited
