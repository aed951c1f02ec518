"""An actor of ENGINE=ray: a process with the backbone on its device, which fills the shards it is handed."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from extract.extractor.progress import Progress
from pipelines.cli.safe_output import start_logging
from pipelines.config import ExtractConfig
from pipelines.engines.extraction_summary import summary_fields, totals_of
from pipelines.engines.one_process import fill, loaded, open_writer
from pipelines.engines.stop_request import StopRequest
from pipelines.forecast.planned_extraction import prepare
from stores.format.plan import ShardId

Shard = tuple[int, int]
"""A ShardId as it travels: bin and number."""


class ShardActor:
    """Plans, loads the backbone and opens the store once; Ray starts it again where its process ended.

    Args:
        config: of the extraction, with this actor's device and workers.
    """

    def __init__(self, config: ExtractConfig) -> None:
        start_logging()
        self._config, self._extraction = config, prepare(config)
        self._backbone = loaded(config, self._extraction)
        self._writer = open_writer(config, self._extraction, self._backbone)
        self._stop = StopRequest(None)
        self._progress: Progress | None = None
        self._lock = threading.Lock()

    def begin(self) -> dict[str, Any]:
        """The store, and what marks this process's claims."""
        return {"store": str(self._writer.path), "token": self._writer.claims.token}

    def pending(self) -> list[tuple[Shard, int]]:
        """The shards without a receipt, with their rows; none of a complete store."""
        if self._writer.complete:
            return []
        plan = self._writer.plan
        return [((shard.bin, shard.shard), len(plan.shard_rows(shard))) for shard in self._writer.pending()]

    def fill(self, shards: Sequence[Shard], ended: Sequence[str]) -> dict[str, Any]:
        """Fills these shards, and commits the store where nothing is left.

        Args:
            shards: handed out to this actor alone.
            ended: marks of the claims of processes that are known to have ended.

        Returns what `--json` of `extract` says of this work, and as `left` those of the shards that a process
        which is no actor works on.
        """
        self._writer.claims.ended.update(ended)
        chosen = [ShardId(*shard) for shard in shards]
        with self._lock:
            self._progress = None
            summary = fill(
                *(self._config, self._extraction, self._backbone, self._writer, None, self._stop),
                only=chosen,
                show=self._note,
            )
        left = [shard for shard in chosen if summary.shards_left and self._writer.receipt(shard) is None]
        return {
            **summary_fields(summary, (0, 0)),
            "store": str(self._writer.path),
            "left": [(shard.bin, shard.shard) for shard in left],
            "done_before": False,
        }

    def _note(self, progress: Progress) -> None:
        self._progress = progress

    def progress(self) -> dict[str, Any] | None:
        """Of the shards at hand; called while they are filled."""
        return None if self._progress is None else dataclasses.asdict(self._progress)

    def stop(self) -> None:
        """Begin no further shard."""
        self._stop.reason = "the driver"

    def totals(self) -> tuple[int, int]:
        """Rows written and skipped by all runs."""
        return totals_of(self._writer)
