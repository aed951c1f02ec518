"""Names, units and order of a task's scores, for reports that load no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One score of a task."""

    name: str
    """As it is logged and as `Figures.scores` names it."""
    unit: str = "%"
    """In which people read it."""
    factor: float = 100.0
    """A logged value times this is in `unit`; shares in 0..1 are logged."""
    higher_is_better: bool = True
    """False for errors, such as rmse."""
    decimals: int = 2
    """With which people read it."""

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value is a better score than another; a value that is no number never is.

        >>> Score(name="mIoU").is_better(0.5, than=0.4)
        True
        >>> Score(name="rmse", higher_is_better=False).is_better(0.5, than=0.4)
        False
        """
        return value > than if self.higher_is_better else value < than

    def shown(self, value: float | None) -> str:
        """A logged value as people read it; its unit, where it is not per cent.

        >>> Score(name="mIoU").shown(0.12344), Score(name="mIoU").shown(None)
        ('12.34', '-')
        >>> Score(name="rmse", unit="m", factor=1.0, decimals=3).shown(0.34912)
        '0.349 m'
        """
        if value is None:
            return "-"
        unit = "" if self.unit in ("%", "") else f" {self.unit}"
        return f"{self.factor * value:.{self.decimals}f}{unit}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """The scores of a task, in the order of its `Figures.scores`: the one that counts first.

    >>> info = TaskInfo(scores=(Score(name="rmse", unit="m", factor=1.0), Score(name="delta1")))
    >>> info.main_score, info.score("rmse").unit, info.score("delta1").factor
    ('rmse', 'm', 100.0)
    """

    scores: tuple[Score, ...]
    has_classes: bool = True
    """Whether its targets name classes. Without classes `num_classes` and `class_names` of a data set are
    empty, no target is counted by label, and heads are built for 0 classes."""

    def __post_init__(self) -> None:
        names = [score.name for score in self.scores]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a task has the scores {names}, expected at least one and no name twice")

    @property
    def main_score(self) -> str:
        """The name of the score that counts."""
        return self.scores[0].name

    def score(self, name: str) -> Score:
        """The score of that name; one of a run by another version is taken for a share."""
        return next((score for score in self.scores if score.name == name), Score(name=name))
