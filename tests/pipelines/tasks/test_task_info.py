"""A task's TaskInfo names its scores as it logs them, and reports use the units given there."""

from __future__ import annotations

import pkgutil
from types import SimpleNamespace

import pytest
import torch

import pipelines.tasks
from heads.depth.deconv import DeconvDepth, DeconvSettings
from heads.segmentation.linear import LinearHead, LinearSettings
from pipelines.tasks import task_info, task_of
from pipelines.tasks.info.contract import Score, TaskInfo
from stores.pyramid import Level, PyramidSpec

NAMES = sorted({m.name for m in pkgutil.iter_modules(pipelines.tasks.__path__) if not m.ispkg} - {"contract"})


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_logged_in_this_order(name: str) -> None:
    task, head = task_of(name), SimpleNamespace(num_classes=3)
    if name == "segmentation":
        level = Level(name="p2", stride_px=4, channels=8, stage=1)
        head = LinearHead(PyramidSpec((level,)), 3, LinearSettings())
    if name == "depth":
        level = Level(name="p5", stride_px=32, channels=8, stage=4)
        head = DeconvDepth(PyramidSpec((level,)), 0, DeconvSettings())
    figures = task.measure(head, [], views_name="single", device=torch.device("cpu"), bf16=False)  # type: ignore[arg-type]
    assert list(figures.scores()) == [score.name for score in task_info(name).scores]
    assert task.info is task_info(name)


def test_main_scores() -> None:
    found = {name: task_info(name).main_score for name in ("segmentation", "detection", "video")}
    assert found == {"segmentation": "mIoU", "detection": "box AP", "video": "top-1"}


@pytest.mark.parametrize("name", ["depths", "contract", "info", "a.b"])
def test_an_unknown_task_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no task '{name}'"):
        task_info(name)


def test_a_task_has_scores_of_different_names() -> None:
    with pytest.raises(ValueError, match=r"\['a', 'a'\], expected at least one and no name twice"):
        TaskInfo(scores=(Score(name="a"), Score(name="a")))
