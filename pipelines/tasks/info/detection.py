"""Scores of detection and instance segmentation."""

from pipelines.tasks.info.contract import Score, TaskInfo

INFO = TaskInfo(
    scores=(
        Score(name="box AP"),
        Score(name="mask AP"),
        Score(name="box AP50"),
        Score(name="mask AP50"),
    )
)
