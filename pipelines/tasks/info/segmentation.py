"""Scores of semantic segmentation."""

from pipelines.metrics.pixel_scores import PIXEL_SCORES
from pipelines.tasks.info.contract import Score, TaskInfo

INFO = TaskInfo(scores=tuple(Score(name=name) for name in PIXEL_SCORES))
