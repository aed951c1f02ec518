"""A task of a SLURM array: `extract` for its part; asked to stop by SIGUSR1 it is queued again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.cli.safe_output import start_logging
from pipelines.config import ExtractConfig

SIGNAL = signal.SIGUSR1
Extract = Callable[[ExtractConfig], Mapping[str, Any]]


@dataclass(frozen=True)
class SlurmTask:
    """What submitit carries to a node and calls there."""

    extract: Extract
    config: ExtractConfig
    drop_after_s: float
    """Seconds from its start after which the running shard is dropped: the limit is near."""

    def __call__(self) -> dict[str, Any]:
        start_logging()
        late = threading.Timer(self.drop_after_s, os.kill, (os.getpid(), SIGNAL))
        late.daemon = True
        late.start()
        try:
            summary = dict(self.extract(self.config))
        except KeyboardInterrupt:  # the second signal
            summary = {"stopped_by": SIGNAL.name, "shards_left": None}
        finally:
            late.cancel()
        if summary.get("stopped_by") == SIGNAL.name and summary["shards_left"] != 0:
            signal.raise_signal(SIGNAL)  # submitit's handler, which asks `checkpoint` and ends the process
        return summary

    def checkpoint(self) -> Any:
        """The task as it is queued again: the same, since finished shards stay."""
        from submitit.helpers import DelayedSubmission  # late: an extra, which the task's process has

        return DelayedSubmission(self)
