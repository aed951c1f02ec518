"""Run records from before the neck table name their neck by `bifpn_layers` and `residual_blocks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.run_folder import RunRecord
from pipelines.runs.trained_head import new_head
from tests.heads.pyramids import pyramid_of

GOLDEN = Path(__file__).parents[2] / "golden" / "run-linear" / "run" / "run.json"


@pytest.mark.parametrize(
    ("task", "head", "settings", "neck", "depth"),
    [
        ("segmentation", "fpn", {"bifpn_layers": 2, "bifpn_norm": "none"}, "bifpn", 2),
        ("segmentation", "bifpn5", {"bifpn_layers": 1}, "bifpn", 1),
        ("detection", "fpn", {"residual_blocks": 2, "box_width": 16}, "fpn-res", 2),
    ],
)
def test_their_heads_are_built(task: str, head: str, settings: dict[str, Any], neck: str, depth: int) -> None:
    fields = json.loads(GOLDEN.read_text())
    fields["head"], fields["head_settings"] = head, {"width": 16, **settings}
    fields["pyramid"] = pyramid_of(8).to_json()
    fields["identity"]["dataset"]["task"] = task
    record = RunRecord.from_json(fields)
    built = new_head(record)
    assert list(built.necks) == [neck]
    repeated = built.necks[neck].blocks[0] if neck == "fpn-res" else built.necks[neck].layers
    assert len(repeated) == depth
    assert record.to_json()["head_settings"] == fields["head_settings"]  # compared when a run is resumed
