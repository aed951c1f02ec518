"""Scores of image classification."""

from pipelines.tasks.info.contract import Score, TaskInfo

INFO = TaskInfo(
    scores=(
        Score(name="top-1"),
        Score(name="top-5"),
        Score(name="mean per class"),
    )
)
