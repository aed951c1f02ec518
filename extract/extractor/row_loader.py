"""Loads planned rows of a record: decoded, checked against the plan, transformed into the view."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.contract import Dataset, Pixels
from extract.decoding.decoder_pool import decoder_pool, forget_decoders
from extract.decoding.trial import ends_its_process
from extract.sources.byte_sources import (
    BAD_TARGET,
    NOT_IN_SUBSET,
    DecoderLost,
    SourceError,
    TookTooLong,
    retried,
)
from extract.views.view import View
from stores.errors import IdentityError
from stores.format.plan import StorePlan
from stores.format.row_table import UNDECODABLE
from stores.work.attempts import MOST_DEATHS, Attempts, record_name

logger = logging.getLogger(__name__)

ENDED_THE_PROCESS = "loading it ended the process, with nothing beside it"
"""Reason of a record that ends this process."""
_ADVICE = "the data set is not the one that was planned; restore it, or extract into another store"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRow:
    """One row as backbone and store receive it."""

    pixels: npt.NDArray[np.uint8]
    """RGB ([T,] padded H, W, 3), zero where it is padding."""
    valid_hw: tuple[int, int]
    targets: Mapping[str, npt.NDArray[Any]]
    source_sha256: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedRow:
    """Why a row is skipped; the same in every run."""

    code: int
    """See stores.format.row_table and extract.sources.byte_sources."""
    reason: str
    source_sha256: bytes | None


class SourceDigests:
    """The sha256 of every record's image as it was first read, in this run or one before. Thread-safe."""

    def __init__(self, recorded: Mapping[str, bytes] | None = None) -> None:
        self._of_key = dict(recorded or {})
        self._lock = threading.Lock()

    def record(self, key: str, sha256: bytes) -> None:
        """Of rows that another process has written."""
        with self._lock:
            self._of_key.setdefault(key, sha256)

    def check(self, key: str, sha256: bytes) -> None:
        """Raises IdentityError where the image is not the one that other rows were made of."""
        with self._lock:
            first = self._of_key.setdefault(key, sha256)
        if first != sha256:
            raise IdentityError(f"the image of record {key} (sha256)", first.hex(), sha256.hex(), _ADVICE)


class RowLoader:
    """Loads rows of a plan. Thread-safe.

    Args:
        dataset: the one that was planned.
        plan: of the store.
        digests: of the sources that were read before.
        attempts: counts what ended a decoder or this process; None: in memory only.
        one_by_one: try each record in a child process before it is loaded here, and count it meanwhile, so
            that a record that ends even this process is known to the next one.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: StorePlan,
        digests: SourceDigests,
        attempts: Attempts | None = None,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._attempts, self._one_by_one = attempts or Attempts(None), one_by_one
        self._alone = threading.Lock()
        self._dataset, self._rows, self._digests = dataset, plan.rows, digests
        self._views_identity = plan.identity["views"]
        self._target_names = tuple(target.name for target in plan.targets)
        self._index_of = {record.key: index for index, record in enumerate(dataset.records)}

    def load(self, row: int) -> LoadedRow | SkippedRow:
        """A row by its number in the plan; see `load_views`."""
        return self.load_views([row])[row]

    @property
    def source_of(self) -> Callable[[int], str] | None:
        """What names the source of a row; None where no two records share one."""
        if all(record.source is None for record in self._dataset.records):
            return None

        def name(row: int) -> str:
            key = self._rows.keys[row]
            return self._dataset.records[self._index_of[key]].source or key

        return name

    def load_views(self, rows: Sequence[int]) -> dict[int, LoadedRow | SkippedRow]:
        """Rows of one source, which is read and decoded once; each as if it were loaded alone.

        Args:
            rows: their numbers in the plan.

        Raises:
            IdentityError: the source is not the one that was planned, or is gone.
            OSError: it could not be read, after several tries.
        """
        subset, found = self._dataset.subset, dict[int, LoadedRow | SkippedRow]()
        if subset is not None:
            others = [row for row in rows if self._rows.keys[row] not in subset]
            skipped = SkippedRow(code=NOT_IN_SUBSET, reason="not in the subset", source_sha256=None)
            found, rows = dict.fromkeys(others, skipped), [row for row in rows if row not in set(others)]
        if not rows:
            return found
        if not self._one_by_one:
            with suppress(MemoryError):  # others beside it may have had a part in that
                return {**found, **self._load(rows)}
        for key, of_key in groupby(rows, key=lambda row: self._rows.keys[row]):
            found |= self._load_alone(key, list(of_key))
        return found

    def _load_alone(self, key: str, rows: Sequence[int]) -> dict[int, LoadedRow | SkippedRow]:
        """Tried in child processes first, as often as a record may end them; then here."""
        name = record_name(key)
        reasons = self._attempts.reasons(name)
        while len(reasons) < MOST_DEATHS:
            with self._alone, self._attempts.counted(name, ENDED_THE_PROCESS):
                reason = ends_its_process(lambda: self._without_locks()._load(rows))
                if reason is None:
                    try:
                        return self._load(rows)
                    except MemoryError:
                        reason = "loading it used up the memory"
            reasons = self._attempts.add(name, reason)
            logger.warning("%s: %s (attempt %d)", key, reason, len(reasons))
        skipped = SkippedRow(code=UNDECODABLE, reason=reasons[-1], source_sha256=None)
        return dict.fromkeys(rows, skipped)

    def _without_locks(self) -> RowLoader:
        """For a forked child: other threads of its parent may have held these locks for ever."""
        loader = copy(self)
        loader._digests = SourceDigests()
        forget_decoders()
        return loader

    def _load(self, rows: Sequence[int]) -> dict[int, LoadedRow | SkippedRow]:
        key = self._rows.keys[rows[0]]
        index = self._index_of[key]
        try:
            data = self._read(index, key)
        except SourceError as error:  # listed, but there was no image when the store was planned
            skipped = SkippedRow(code=error.code, reason=error.reason, source_sha256=None)
            return dict.fromkeys(rows, skipped)
        sha256 = hashlib.sha256(data).digest()
        truths: dict[str, tuple[Any, SourceError | None]] = {}
        found: dict[int, LoadedRow | SkippedRow] = {}
        for key, of_key in groupby(rows, key=lambda row: self._rows.keys[row]):
            truth = self._truth(key, sha256)
            if isinstance(truth, SkippedRow):
                found |= dict.fromkeys(of_key, truth)
            else:
                truths[key] = truth
        left = [row for row in rows if row not in found]
        if not left:
            return found
        media = self._dataset.media
        views = [
            media.view_from_params(self._rows.params[row]).of_store(self._views_identity) for row in left
        ]
        rendered = self._rendered(data, index, views)
        for row, view, pixels in zip(left, views, rendered, strict=True):
            truth, problem = truths[self._rows.keys[row]]
            if isinstance(pixels, SourceError) or problem is not None:
                why = pixels if isinstance(pixels, SourceError) else problem
                assert why is not None
                found[row] = SkippedRow(code=why.code, reason=why.reason, source_sha256=sha256)
                continue
            targets = self._dataset.targets(truth, view)
            found[row] = LoadedRow(
                pixels=pixels,
                valid_hw=view.valid_hw,
                targets={name: targets[name] for name in self._target_names},
                source_sha256=sha256,
            )
        return found

    def _truth(self, key: str, sha256: bytes) -> tuple[Any, SourceError | None] | SkippedRow:
        """Of a record, once for all its views, as label maps are decoded too: the truth, or why it has none;
        why its rows are skipped where the annotation cannot be read."""
        index = self._index_of[key]
        self._digests.check(key, sha256)
        try:
            annotation = retried(lambda: self._dataset.read_annotation(index), f"annotation of {key}")
        except SourceError as error:
            return SkippedRow(code=BAD_TARGET, reason=error.reason, source_sha256=sha256)
        self._check_annotation(index, key, annotation)
        return self._parsed(index, annotation)

    def _check_annotation(self, index: int, key: str, annotation: bytes) -> None:
        """Raises IdentityError where it is not the one that was planned; where that is not known, nothing."""
        known: Callable[[int], str | None] | None = getattr(self._dataset, "annotation_sha256", None)
        if known is None or (planned := known(index)) is None:
            return
        if (found := hashlib.sha256(annotation).hexdigest()) != planned:
            raise IdentityError(f"the annotation of record {key} (sha256)", planned, found, _ADVICE)

    def _parsed(self, index: int, annotation: bytes) -> tuple[Any, SourceError | None]:
        """The truth, or why there is none."""
        try:
            return self._dataset.parse_annotation(index, annotation), None
        except SourceError as error:
            return None, error

    def _rendered(self, data: bytes, index: int, views: Sequence[View]) -> list[Pixels | SourceError]:
        """Each view's pixels, or why it has none: of a damaged video some views may be sound."""
        try:
            return self._decoded(data, index, views)
        except DecoderLost as error:
            return [error] * len(views)
        except SourceError as error:
            if len(views) == 1:
                return [error]
        return [self._rendered(data, index, [view])[0] for view in views]

    def _decoded(self, data: bytes, index: int, views: Sequence[View]) -> list[Pixels | SourceError]:
        """Tried again where it ends its decoder, in a fresh process, the last time with nothing beside it.
        Raises the DecoderLost of the last try; that of an earlier run where that one was the last."""
        record, media = self._dataset.records[index], self._dataset.media
        name = record_name(record.key)
        reasons = self._attempts.reasons(name)
        while len(reasons) < MOST_DEATHS:
            is_last = len(reasons) == MOST_DEATHS - 1
            try:
                with decoder_pool().alone() if is_last else nullcontext():
                    return list(media.render(data, record, views))
            except DecoderLost as death:
                is_certain = isinstance(death, TookTooLong)  # after two processes
                reasons = self._attempts.add(name, death.reason, times=MOST_DEATHS if is_certain else 1)
                logger.warning("%s: %s (attempt %d)", record.key, death.reason, len(reasons))
        raise DecoderLost(UNDECODABLE, reasons[-1])

    def _read(self, index: int, key: str) -> bytes:
        planned = self._dataset.records[index].source_bytes
        try:
            data = retried(lambda: self._dataset.read_source(index), f"image of {key}")
        except FileNotFoundError:
            raise IdentityError(
                f"the image of record {key}", f"{planned} bytes", "no file", _ADVICE
            ) from None
        if len(data) != planned:
            raise IdentityError(f"the image of record {key} (bytes)", planned, len(data), _ADVICE)
        return data
