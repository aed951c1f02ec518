"""State of a running extraction: rows, shards, broken records, time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from extract.extractor.progress import Progress, Stopwatch
from extract.extractor.row_loader import LoadedRow, SkippedRow
from extract.extractor.shard_job import Outcome
from extract.sources.byte_sources import NOT_IN_SUBSET
from stores.format.plan import ShardId, StorePlan
from stores.format.row_table import WRITTEN
from stores.shards.receipts import Receipt


class TooManyFailed(RuntimeError):
    """More records were skipped than allowed. Finished shards stay."""

    def __init__(self, failed: Mapping[str, str], limit: int) -> None:
        self.failed, self.limit = dict(failed), limit
        named = "; ".join(f"{key}: {reason}" for key, reason in list(failed.items())[:5])
        super().__init__(
            f"{len(failed)} records cannot be used, at most {limit} may be skipped (--max-failed): {named}"
            + ("; ..." if len(failed) > 5 else "")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What one run of an extraction did."""

    rows_written: int
    skipped: list[tuple[str, int, str]]
    """(record key, view, reason) of the rows that this run skipped, without those outside a subset."""
    shards: int
    """Finished in this run; 0: there was nothing left to do."""
    shards_elsewhere: int
    """Finished by other processes while this one ran, those lost included."""
    shards_lost: int
    """Computed by this process in vain: another one finished them first. Their rows are not counted here."""
    seconds: float
    images_per_s: float
    bytes: int
    """Of features and scales."""
    bottleneck: str
    """decode, backbone or write: which of them the others waited for."""
    shards_left: int
    """Not finished: others work on them, or this run was asked to stop."""
    manifest_digest: str | None
    """None: the store is not complete, see `shards_left`."""


class Tally:
    """Counts rows, shards and failures. Not thread-safe."""

    def __init__(
        self,
        plan: StorePlan,
        shards: Iterable[ShardId],
        subset: Collection[str] | None,
        max_failed: int,
        finished: Iterable[ShardId] = (),
    ) -> None:
        self.watch = Stopwatch()
        self._plan, self._subset, self._max_failed = plan, subset, max_failed
        self._failed: dict[str, str] = {}
        self._outcomes: list[Outcome] = []
        self._rows_done = self._rows_total = self._shards_total = 0
        self._elsewhere = self._lost = 0
        for shard in shards:
            self._shards_total += 1
            self.add_work(shard)
        self._rows_before = sum(map(self._rows_of, finished))

    def key(self, shard: ShardId, row: int) -> str:
        """The record of a bin-local row."""
        return self._plan.rows.keys[self._plan.global_row(shard.bin, row)]

    def add_work(self, shard: ShardId) -> None:
        """A shard is to be done (again)."""
        self._rows_total += self._rows_of(shard)

    def _rows_of(self, shard: ShardId) -> int:
        """Rows of the subset."""
        rows, subset = self._plan.shard_rows(shard), self._subset
        return len(rows) if subset is None else sum(self.key(shard, row) in subset for row in rows)

    def drop_work(self, shard: ShardId, receipt: Receipt) -> None:
        """Another process has finished a shard that was counted as work of this run. Raises TooManyFailed."""
        self._shards_total -= 1
        self._elsewhere += 1
        rows = self._rows_of(shard)
        self._rows_total -= rows
        self._rows_before += rows
        self.add_earlier_failures(shard, receipt)
        self._add_failures(shard, ())

    def add_loss(self, outcome: Outcome, receipt: Receipt | None) -> None:
        """A shard of this process is another's. Raises TooManyFailed."""
        self._lost += 1
        self._rows_done -= self._rows_of(outcome.shard)
        if receipt is not None:
            self.drop_work(outcome.shard, receipt)

    def add_earlier_failures(self, shard: ShardId, receipt: Receipt) -> None:
        """Records that an earlier run skipped count too: a run that is resumed is still one extraction."""
        for position, (row, code) in enumerate(
            zip(self._plan.shard_rows(shard), receipt.outcome, strict=True)
        ):
            if code not in (WRITTEN, NOT_IN_SUBSET):
                self._failed[self.key(shard, row)] = receipt.reasons.get(str(position), "")

    def add_rows(self, shard: ShardId, rows: Mapping[int, LoadedRow | SkippedRow]) -> None:
        """Rows were loaded, or not. Raises TooManyFailed."""
        self._rows_done += sum(
            isinstance(row, LoadedRow) or row.code != NOT_IN_SUBSET for row in rows.values()
        )
        self._add_failures(shard, ((n, row) for n, row in rows.items() if isinstance(row, SkippedRow)))

    def add_outcome(self, outcome: Outcome) -> None:
        """A shard is finished. Raises TooManyFailed."""
        self._outcomes.append(outcome)
        self._add_failures(outcome.shard, outcome.skipped)

    def _add_failures(self, shard: ShardId, skipped: Iterable[tuple[int, SkippedRow]]) -> None:
        for row, why in skipped:
            if why.code != NOT_IN_SUBSET:
                self._failed.setdefault(self.key(shard, row), why.reason)
        if len(self._failed) > self._max_failed:
            raise TooManyFailed(self._failed, self._max_failed)

    def progress(self, finished_shard: ShardId | None = None) -> Progress:
        """The counts at this moment."""
        return Progress(
            rows_done=self._rows_done,
            rows_total=self._rows_total,
            rows_before=self._rows_before,
            failed_records=len(self._failed),
            shards_done=len(self._outcomes),
            shards_total=self._shards_total,
            finished_shard=None if finished_shard is None else self._plan.shard_name(finished_shard),
            seconds=self.watch.seconds,
            bytes_written=sum(outcome.bytes for outcome in self._outcomes),
            bottleneck=self.watch.bottleneck,
            waited_s=self.watch.waited_s,
        )

    def summary(self, manifest_digest: str | None, *, shards_left: int = 0) -> Summary:
        """The totals of the run. Args: shards_left: those without a receipt at its end."""
        begun = self._shards_total + self._elsewhere
        seconds, view = self.watch.seconds, self._plan.rows.view
        written = sum(outcome.written for outcome in self._outcomes)
        return Summary(
            rows_written=written,
            skipped=[
                (self.key(o.shard, row), int(view[self._plan.global_row(o.shard.bin, row)]), why.reason)
                for o in self._outcomes
                for row, why in o.skipped
                if why.code != NOT_IN_SUBSET
            ],
            shards=len(self._outcomes),
            shards_elsewhere=max(self._elsewhere, begun - len(self._outcomes) - shards_left),
            shards_lost=self._lost,
            seconds=seconds,
            images_per_s=written / seconds,
            bytes=sum(outcome.bytes for outcome in self._outcomes),
            bottleneck=self.watch.bottleneck,
            shards_left=shards_left,
            manifest_digest=manifest_digest,
        )
