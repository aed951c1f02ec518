"""Scores of monocular depth."""

from pipelines.tasks.info.contract import Score, TaskInfo

INFO = TaskInfo(
    scores=(
        Score(name="RMSE", unit="m", factor=1.0, higher_is_better=False, decimals=3),
        *(
            Score(name=name, unit="", factor=1.0, higher_is_better=False, decimals=4)
            for name in ("AbsRel", "SqRel", "RMSElog", "log10", "SILog")
        ),
        *(Score(name=name, unit="", factor=1.0, decimals=4) for name in ("d1", "d2", "d3")),
    ),
    has_classes=False,
)
