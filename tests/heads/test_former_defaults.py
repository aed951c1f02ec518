"""Defaults of earlier versions: an old run's head stays the head it was."""

import pytest

from heads import head_names, head_settings
from heads.errors import HeadError
from heads.former_defaults import FORMER_DEFAULTS, head_revision, recorded_settings


@pytest.mark.parametrize(("task", "name"), FORMER_DEFAULTS)
def test_they_name_settings_of_heads_that_have_other_ones_now(task: str, name: str) -> None:
    assert name in head_names(task)
    now = head_settings(name, task)
    assert all(value != getattr(now, key) for key, value in FORMER_DEFAULTS[task, name][-1].items())


def test_what_a_run_of_each_revision_means() -> None:
    assert head_revision("cascade-bifpn5", "detection") == 2
    assert head_revision("bifpn5", "detection") == head_revision("linear", "video") == 1
    own = {"box_head": "giou_4conv1fc", "neck_depth": 2}
    assert recorded_settings("htc-bifpn5", "detection", own, 1) == {**own, "border_anchors": True}
    assert recorded_settings("htc-bifpn5", "detection", own, 2) == own
    assert recorded_settings("bifpn5", "detection", own, 1) == own
    for revision in (0, 3):
        with pytest.raises(HeadError, match=rf"'htc-bifpn5' is of revision {revision}, expected 1..2"):
            recorded_settings("htc-bifpn5", "detection", {}, revision)
