"""Reads of a batch from a store at a URL: what is missing is fetched first, all of it at once.

Blocks that are kept are then read as local files are. Rows of arrays that are not kept are fetched straight
into the caller's memory, neighbours in one request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stores.errors import IntegrityError
from stores.reading.array_reader import ArrayReader, RowJob
from stores.reading.read_threads import Job, ReadThreads
from stores.remote.remote_file import FETCHES, CachedFile, StreamedFile, copied, fetch_threads

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
        self._open_shards(jobs)
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
        if all(reader.is_open(row) for reader, row, _ in jobs):
            self._fetch(jobs)
        else:
            fetch_threads().submit(self._open_and_fetch, jobs)

    def _open_and_fetch(self, jobs: Sequence[RowJob]) -> None:
        for reader, row, _ in jobs:
            if not reader.is_open(row):
                _place(reader, row)
        self._fetch(jobs)

    def _open_shards(self, jobs: Sequence[RowJob]) -> None:
        """Opens the shard files of the rows, several at once: of each an index is read."""
        closed = {(id(reader), reader.shard_of(row)): (reader, row) for reader, row, _ in jobs
                  if not reader.is_open(row)}  # fmt: skip
        if closed:
            self._waiting.run([(_Opener(reader), row, memoryview(b"")) for reader, row in closed.values()])

    @staticmethod
    def _fetch(jobs: Sequence[RowJob]) -> None:
        for reader, row, _ in jobs:
            opened, offset, length = reader.place(row)
            if isinstance(opened, CachedFile):
                for block in opened.missing(offset, length):
                    opened.fetch(block)

    @staticmethod
    def _drop_damaged(jobs: Sequence[RowJob]) -> bool:
        found = False
        for reader, row, _ in jobs:
            opened, offset, length = reader.place(row)
            found |= isinstance(opened, CachedFile) and opened.drop_damaged(offset, length)
        return found

    def close(self) -> None:
        self._waiting.close()


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
