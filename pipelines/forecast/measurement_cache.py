"""Cache of measurements on this machine, in the user's cache folder; never part of a store or a result.

One JSON file: the sha256 of everything a figure depends on (the machine among it) -> the figure and when it
was measured. It may be deleted at any time, and one that cannot be read is measured anew.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pipelines.json_output import write_json
from stores.format.canonical_json import canonical_json, sha256_hex

logger = logging.getLogger(__name__)

FILE_NAME = "speed.json"
MAX_AGE_S = 7 * 86400
FIGURES_REVISION = 2
"""Raised whenever a stage measures other figures: those kept by an older version are then not used."""
Figures = dict[str, float]


def cache_folder() -> Path:
    """$PERMAFROST_CACHE, else the user's cache folder."""
    own = os.environ.get("PERMAFROST_CACHE")
    return (
        Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "permafrost"
    )


class SpeedCache:
    """Cached figures; `get` measures the missing ones."""

    def __init__(self, *, remeasure: bool = False) -> None:
        self._path, self._remeasure = cache_folder() / FILE_NAME, remeasure
        self.oldest_s = 0.0
        """Age of the oldest figure that was used."""

    def get(self, stage: str, facts: Mapping[str, Any], measure: Callable[[], Figures]) -> Figures:
        """The figures of a stage under `facts`, JSON values, on this machine."""
        of = {"stage": stage, "facts": dict(facts), "machine": machine_facts(), "revision": FIGURES_REVISION}
        key = sha256_hex(canonical_json(of))
        known = {} if self._remeasure else self._read()
        if (figures := self._fresh(known.get(key))) is not None:
            return figures
        logger.info("measuring this machine: %s", f"{stage} {facts['head']}" if "head" in facts else stage)
        figures = measure()
        self._write({**self._read(), key: {"stage": stage, "time": time.time(), "figures": figures}})
        return figures

    def _fresh(self, entry: Any) -> Figures | None:
        try:
            age_s = time.time() - float(entry["time"])
            figures = {str(name): float(value) for name, value in entry["figures"].items()}
        except (TypeError, KeyError, ValueError, AttributeError):
            return None
        if not 0 <= age_s <= MAX_AGE_S:
            return None
        self.oldest_s = max(self.oldest_s, age_s)
        return figures

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, entries: dict[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, entries)
        except OSError:  # a home that cannot be written: it is measured again next time
            return


@cache
def machine_facts() -> dict[str, Any]:
    """What a measured speed depends on besides what was measured."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
