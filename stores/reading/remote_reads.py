"""Reads of a batch from a store at a URL: what is missing is fetched first, all of it at once.

Blocks that are kept are then read as local files are. Rows of arrays that are not kept are fetched straight
into the caller's memory, neighbours in one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from stores.errors import IntegrityError, StoreError
from stores.reading.array_reader import ArrayReader, RowJob
from stores.reading.read_threads import Job, ReadThreads
from stores.remote.remote_file import FETCHES, CachedFile, StreamedFile, copied

JOINED_BYTES = 4 << 20
"""4 MiB: neighbouring rows are fetched together up to this size."""


class RemoteReads:
    """Runs reads of a store at a URL.

    Args:
        threads: for rows that are here.
    """

    def __init__(self, threads: ReadThreads) -> None:
        self._threads = threads
        self._waiting = ReadThreads(FETCHES, worth_bytes=0)

    def run(self, jobs: Sequence[RowJob]) -> None:
        """Runs all reads, or raises the first error."""
        if closed := _one_of_each_shard(job for job in jobs if not job[0].is_open(job[1])):
            self._begin(jobs)
            self._waiting.run([(_Opener(reader), row, memoryview(b"")) for reader, row, _ in closed])
        kept: list[RowJob] = []
        streamed: list[RowJob] = []
        missing: dict[tuple[int, int], CachedFile] = {}
        for job in jobs:
            opened, offset, length = job[0].place(job[1])
            if isinstance(opened, StreamedFile):
                streamed.append(job)
                continue
            kept.append(job)
            if isinstance(opened, CachedFile) and not opened.has(offset, length):
                missing |= {(id(opened), block): opened for block in opened.missing(offset, length)}
        fetched = [opened.fetch(block) for (_, block), opened in missing.items()]
        if streamed:
            self._waiting.run(list(_joined(streamed)))
        for each in fetched:
            each.result()
        try:
            self._threads.run(kept)
        except IntegrityError:
            if not self._drop_damaged(kept):
                raise
            self._threads.run(kept)  # which fetches what is missing now

    def prefetch(self, jobs: Sequence[RowJob]) -> None:
        """Starts to fetch what these reads miss and returns; errors are met by whoever reads."""
        unknown: list[RowJob] = []
        with suppress(StoreError, OSError):
            unknown = self._begin(jobs)
        for reader, row, _ in unknown:
            self._waiting.start(partial(_place_and_fetch, reader, row))

    @staticmethod
    def _begin(jobs: Sequence[RowJob]) -> list[RowJob]:
        """Starts to fetch the blocks of these rows and the indexes of their shards that are not open; returns
        the reads for which the index has to be read first."""
        unknown: list[RowJob] = []
        for job in jobs:
            reader, row, _ = job
            is_open = reader.is_open(row)
            found = reader.place(row) if is_open else reader.planned_place(row)
            if found is None:
                unknown.append(job)
                continue
            opened, offset, length = found
            if isinstance(opened, CachedFile):
                opened.start(offset, length)
                if not is_open:
                    opened.start(opened.size - reader.spec.index_bytes, reader.spec.index_bytes)
        return unknown

    @staticmethod
    def _drop_damaged(jobs: Sequence[RowJob]) -> bool:
        found = False
        for reader, row, _ in jobs:
            opened, offset, length = reader.place(row)
            found |= isinstance(opened, CachedFile) and opened.drop_damaged(offset, length)
        return found

    def close(self) -> None:
        self._waiting.close()


def _one_of_each_shard(jobs: Iterable[RowJob]) -> list[RowJob]:
    return list({(id(job[0]), job[0].shard_of(job[1])): job for job in jobs}.values())


def _place_and_fetch(reader: ArrayReader, row: int) -> None:
    _place(reader, row)
    opened, offset, length = reader.place(row)
    if isinstance(opened, CachedFile):
        opened.start(offset, length)


def _place(reader: ArrayReader, row: int) -> None:
    """Opens the shard of a row; an index that the local disk damaged is fetched once more."""
    try:
        reader.place(row)
    except IntegrityError:
        opened = reader.opened(row)
        if not isinstance(opened, CachedFile) or not opened.drop_damaged(0, opened.size):
            raise
        reader.place(row)


class _Opener:
    """Opens the shard of a row, as a read."""

    def __init__(self, reader: ArrayReader) -> None:
        self._reader = reader

    def read_row(self, row: int, _: memoryview) -> None:
        _place(self._reader, row)


class _Run:
    """Reads neighbouring rows of one shard, in chunks of one length, by one request."""

    def __init__(self, jobs: Sequence[RowJob]) -> None:
        self._jobs = jobs

    def read_row(self, row: int, _: memoryview) -> None:
        reader = self._jobs[0][0]
        opened, start, length = reader.place(row)
        assert isinstance(opened, StreamedFile)
        data = opened.view(length * len(self._jobs), start)
        if len(data) != length * len(self._jobs):
            raise IntegrityError(f"{reader.where(row)} is incomplete: its shard was truncated")
        for number, (same, each, target) in enumerate(self._jobs):
            copied(data[number * length :][: len(target)], target)
            same.check(each, target)


def _joined(jobs: Sequence[RowJob]) -> Iterator[Job]:
    """The reads, neighbours of one shard together."""
    run: list[RowJob] = []
    for job in jobs:
        if run and not _follows(run, job):
            yield _as_one(run)
            run = []
        run.append(job)
    if run:
        yield _as_one(run)


def _follows(run: Sequence[RowJob], job: RowJob) -> bool:
    reader, row, out = run[-1]
    return (
        type(reader) is ArrayReader
        and reader is job[0]
        and row + 1 == job[1]
        and reader.shard_of(row) == reader.shard_of(row + 1)
        and (len(run) + 1) * len(out) <= JOINED_BYTES
    )


def _as_one(run: Sequence[RowJob]) -> Job:
    return run[0] if len(run) == 1 else (_Run(run), run[0][1], run[0][2])
