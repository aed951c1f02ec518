"""Plans of stores that were begun: a resume reads the rows from the plan and draws no view again.

Beside the plan, in `work/` until the commit, stands what the annotations were when it was made: the state of
their files, and the sha256 of each. Where the files are in that state still, these digests are taken; where
anything differs, or nothing is recorded, every annotation is read as for a new store. Each annotation is
compared with its digest once more when its row comes.

A data set takes part that has `source_state`, a digest of what its annotations follow from, `survey_record`
and `use_survey`; see `extract.datasets.contract`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from extract.datasets.contract import Dataset
from extract.datasets.layouts.annotation_digest import digest_of
from extract.planning.plan import Card, Estimate, PlanChoices, draft_identity, estimate_of
from extract.views.recipes import ViewRecipe
from stores.checks.status import plan_of_unfinished
from stores.errors import StoreError
from stores.format.canonical_json import diff_identity
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.format.plan import StorePlan
from stores.format.row_table import MAX_ROWS
from stores.remote.opening import files_of, open_folder
from stores.shards.disk import make_folders, read_whole, replace_file
from stores.work.folder import WORK

logger = logging.getLogger(__name__)

NAME = "sources"
_DIGEST_BYTES = 32
_MAX_BYTES = MAX_ROWS * _DIGEST_BYTES + (64 << 20)
_OPEN = {"backbone.weights_sha256", "backbone.precision"}
"""Fields of an identity that need the weights and the device."""


class Surveyed(Protocol):
    """What a data set offers whose annotations need not be read again."""

    @property
    def source_state(self) -> str | None: ...

    @property
    def survey_record(self) -> tuple[bytes, dict[str, Any]] | None: ...

    def use_survey(self, digests: bytes, findings: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """What a data set's annotations were."""

    state: str
    digests: bytes
    """32 a record."""
    findings: dict[str, Any]
    """JSON: what else a survey says, see `use_survey`."""

    def encode(self) -> bytes:
        body = json.dumps({"state": self.state, "findings": self.findings}).encode() + b"\n" + self.digests
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    @classmethod
    def decode(cls, data: bytes) -> SourceRecord:
        """Raises ValueError for bytes that `encode` did not write."""
        digest, _, body = data.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("its digest is another")
        head, _, digests = body.partition(b"\n")
        fields = json.loads(head)
        return cls(state=str(fields["state"]), digests=digests, findings=dict(fields["findings"]))


def record_sources(root: Path, dataset: Dataset) -> None:
    """Keeps what the data set's annotations are beside the plan of a store; nothing where that is unknown.

    A folder that cannot be written is no reason to stop: a resume then reads the annotations.
    """
    state, survey = getattr(dataset, "source_state", None), getattr(dataset, "survey_record", None)
    path = root / WORK / NAME
    if state is None or survey is None or path.exists() or (root / MANIFEST_NAME).exists():
        return
    record = SourceRecord(state=state, digests=survey[0], findings=survey[1])
    try:
        files = files_of(root)
        make_folders(files, root, WORK)
        replace_file(files, path, record.encode(), uuid.uuid4().hex)
    except OSError as error:
        logger.info("%s cannot be written: %s", path, error)


def begun_estimate(
    stores: Path,
    dataset: Dataset,
    recipe: ViewRecipe,
    card: Card,
    *,
    weights_sha256: str | None = None,
    **choices: Any,
) -> Estimate | None:
    """The estimate of a store under `stores` that was begun with these choices; None where there is none, or
    the sources are not as they were.

    Args:
        dataset: open; it takes the digests of its annotations from the record, where they hold.
        weights_sha256: chooses among stores that differ in their weights alone.
        choices: as of `estimate_plan`.
    """
    records = list(_records(stores)) if getattr(dataset, "use_survey", None) is not None else []
    if not records:
        return None
    source: Surveyed = dataset  # type: ignore[assignment]
    fitting = [(root, record) for root, record in records if _holds(record, source, len(dataset.records))]
    if not fitting:
        return None
    record = fitting[0][1]
    source.use_survey(record.digests, record.findings)
    hexes = (record.digests[start : start + 32].hex() for start in range(0, len(record.digests), 32))
    keys = (each.key for each in dataset.records)
    chosen = PlanChoices(**choices)
    identity = draft_identity(dataset, recipe, card, chosen, digest_of(zip(keys, hexes, strict=True)))
    plans = [plan for root, _ in fitting if (plan := _plan(root, identity)) is not None]
    plans.sort(key=lambda plan: plan.identity["backbone"]["weights_sha256"] != weights_sha256)
    return estimate_of(plans[0], dataset, chosen, begun=plans[0]) if plans else None


def _records(stores: Path) -> Iterator[tuple[Path, SourceRecord]]:
    for path in sorted(stores.glob(f"*/{WORK}/{NAME}")):
        root = path.parents[1]
        if (root / PLAN_NAME).exists() and not (root / MANIFEST_NAME).exists():
            try:
                yield root, SourceRecord.decode(read_whole(files_of(root), path, _MAX_BYTES))
            except (OSError, StoreError, ValueError, KeyError, TypeError) as error:
                logger.info("%s is not used: %s", path, error)


def _holds(record: SourceRecord, source: Surveyed, records: int) -> bool:
    return len(record.digests) == records * _DIGEST_BYTES and record.state == source.source_state


def _plan(root: Path, identity: dict[str, Any]) -> StorePlan | None:
    """The plan of a store, if its identity is this one but for what needs the weights."""
    try:
        plan = plan_of_unfinished(open_folder(root))
    except (StoreError, OSError) as error:  # whoever opens it for writing reports it
        logger.info("%s is not used: %s", root, error)
        return None
    if plan is None:
        return None
    return plan if {field for field, _, _ in diff_identity(identity, plan.identity)} <= _OPEN else None
