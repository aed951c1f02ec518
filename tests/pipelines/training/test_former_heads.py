"""Runs of earlier versions whose head had other defaults are read, reported and resumed as what they were."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from heads.errors import HeadError
from pipelines.config import TrainConfig
from pipelines.json_output import write_json
from pipelines.reporting.report_rows import report_rows
from pipelines.reporting.run_summary import RunFigures
from pipelines.runs.run_folder import RUN_RECORD, RunRecord, read_run
from pipelines.runs.trained_head import new_head
from pipelines.training.build_module import head_revision
from tests.heads.pyramids import pyramid_of

GOLDEN = Path(__file__).parents[2] / "golden" / "run-linear" / "run" / "run.json"
SMALL = {"width": 16, "box_width": 16, "mask_width": 16}


def record(head: str, revision: int | None, **settings: Any) -> RunRecord:
    """Of a detection run; None: of a version that recorded no revision."""
    fields = json.loads(GOLDEN.read_text())
    assert "head_revision" not in fields
    fields |= {"head": head, "head_settings": SMALL | settings, "pyramid": pyramid_of(8).to_json()}
    fields["identity"]["dataset"]["task"] = "detection"
    return RunRecord.from_json(fields if revision is None else fields | {"head_revision": revision})


@pytest.mark.parametrize("head", ["cascade-fpn", "cascade-bifpn5", "htc-bifpn5", "htc-nosem-bifpn5"])
def test_a_record_without_revision_is_of_the_former_head(head: str) -> None:
    old, new = (new_head(record(head, revision)) for revision in (None, 2))
    assert (old.settings.box_head, old.rpn.border_anchors) == ("2fc", True)
    assert (new.settings.box_head, new.rpn.border_anchors) == ("giou_4conv1fc", False)
    assert "box_heads.0.hidden2.weight" in old.state_dict()
    assert "box_heads.0.hidden2.weight" not in new.state_dict()
    given = new_head(record(head, None, box_head="giou_4conv1fc"))
    assert (given.settings.box_head, given.rpn.border_anchors) == ("giou_4conv1fc", True)


def test_heads_that_did_not_change_need_no_revision() -> None:
    assert record("bifpn5", None).full_settings == record("bifpn5", 1).full_settings == SMALL
    with pytest.raises(HeadError, match=r"revision 2, expected 1\.\.1: the run was made by a later version"):
        new_head(record("bifpn5", 2))


def test_a_resumed_run_keeps_the_revision_it_began_with(tmp_path: Path) -> None:
    config = TrainConfig(head="cascade-fpn", run=str(tmp_path))
    assert head_revision(config, "detection") == 2
    resumed = dataclasses.replace(config, resume=True)
    for revision in (None, 2):
        write_json(tmp_path / RUN_RECORD, record("cascade-fpn", revision).to_json())
        assert head_revision(resumed, "detection") == (revision or 1)
        assert read_run(tmp_path).full_settings == record("cascade-fpn", revision).full_settings


def test_a_report_has_a_row_for_each(tmp_path: Path) -> None:
    runs = [
        RunFigures(
            folder=tmp_path / str(revision),
            record=record("cascade-fpn", revision),
            config={"seed": 0, "head": "cascade-fpn"},
            scores={},
            costs=None,
            steps_done=0,
            evaluated_step=None,
        )
        for revision in (None, 2)
    ]
    rows = report_rows(runs)
    own = "width=16, box_width=16, mask_width=16"
    assert {row.settings for row in rows} == {own, f"box_head=2fc, border_anchors=True, {own}"}
    assert {row.head for row in rows} == {"cascade-fpn"}
