"""Scores of semantic segmentation."""

from pipelines.tasks.info.contract import Score, TaskInfo

INFO = TaskInfo(
    scores=(
        Score(name="mIoU"),
        Score(name="pixel_accuracy"),
    )
)
