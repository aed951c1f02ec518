"""Scores of pose estimation."""

from pipelines.tasks.info.contract import Score, TaskInfo

INFO = TaskInfo(scores=(Score(name="AP"), Score(name="AP50"), Score(name="AP75"), Score(name="AR")))
