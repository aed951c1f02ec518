"""What every registered task promises; a new task needs no test code."""

import numpy as np
import pytest
import torch

from heads import head_names
from heads.errors import HeadError
from pipelines.tasks import task_info, task_names, task_of
from tests.contracts.small_heads import build_small_head
from tests.heads.pyramids import clip_pyramid, probe_pyramid, pyramid_of, random_clips, random_features

HW, CLASSES = (64, 96), 3

every_task = pytest.mark.parametrize("name", task_names())


@every_task
def test_scores_have_names_in_order(name: str) -> None:
    assert task_of(name).info == task_info(name)
    assert task_info(name).main_score == task_info(name).scores[0].name


@every_task
def test_what_predict_takes(name: str) -> None:
    task = task_of(name)
    assert task.source_kind and task.source_endings
    assert all(ending.startswith(".") and ending == ending.lower() for ending in task.source_endings)


@every_task
def test_made_targets_train_some_head(name: str) -> None:
    """As `plan` measures a step: with targets of the names, and no others, that a head learns from."""
    task = task_of(name)
    targets = task.made_targets(2, HW, CLASSES, torch.Generator().manual_seed(0))
    assert len(targets) == 2 and task.training_targets and task.test_targets
    for head_name in head_names(name):
        is_video = task.source_kind == "videos"
        pyramid = {"video": clip_pyramid(32), "classification": probe_pyramid(32)}.get(name, pyramid_of(8))
        try:
            head = build_small_head(head_name, name, pyramid, CLASSES)
        except HeadError:  # of other levels, such as a plain ViT's
            continue
        if set(head.target_names) <= set(targets[0]):
            made = random_clips(pyramid, 2, 2, HW) if is_video else random_features(pyramid, 2, HW)
            losses = head.losses(made, targets, [HW, HW], torch.Generator().manual_seed(0))
            assert all(np.isfinite(loss.item()) for loss in losses.values())
            return
    pytest.fail(f"no head of {name} learns from {sorted(targets[0])}")


def test_other_names_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no task 'sorting'; available: .*classification, .*segmentation, video"
    ):
        task_of("sorting")
