"""Protocol of a task: targets, metrics on a test split, predictions for new sources."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from pipelines.machine.adjacent_rows import adjacent_rows
from pipelines.tasks.info.contract import TaskInfo
from pipelines.units import percent as percent  # also a name of this module

if TYPE_CHECKING:  # a report knows its tasks without torch
    import torch
    from torch import Tensor

    from heads.contract import Head
    from pipelines.live.run_model import RunModel

Arrays = Mapping[str, npt.NDArray[Any]]
VIEWS_AT_ONCE = 4
"""Views of one shape that are read, copied and dequantised together, and go through a head together."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Of the files that `predict` takes for images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestView:
    """One view of a test record, as a head sees it."""

    __test__ = False  # not a test case of pytest

    key: str
    features: dict[str, Tensor]
    """Level -> (1, C, [T,] y, x) on the head's device."""
    valid_hw: tuple[int, int]
    params: Mapping[str, float]
    """The view's parameters by name, see rows/params of a store: flip, resized_y, ..."""
    original_hw: tuple[int, int]
    """Of the source, in pixels."""
    truth: Arrays
    """The task's `test_targets`: untouched, the same for all views of a record."""
    record: int = 0
    """The place of its record in the test split; views come in an order that suits their shapes."""


def same_shapes(views: Iterable[TestView], most: int = VIEWS_AT_ONCE) -> Iterator[list[TestView]]:
    """Views of one shape that follow each other, at most `most` together; `joined_features` of them is what
    a head is given."""
    for _, of_shape in groupby(views, key=lambda view: [x.shape for x in view.features.values()]):
        while together := list(islice(of_shape, most)):
            yield together


def joined_features(together: Sequence[TestView]) -> dict[str, Tensor]:
    """Level -> (N, C, [T,] y, x) of N views of one shape."""
    return {
        level: adjacent_rows([view.features[level] for view in together]) for level in together[0].features
    }


def targets_there(task: object, wanted: Sequence[str], there: Container[str]) -> tuple[str, ...]:
    """The targets to read of a store: all that a task wants, but those of its `optional_targets` that are not
    there, as masks of data that has boxes alone."""
    optional: tuple[str, ...] = getattr(task, "optional_targets", ())
    return tuple(name for name in wanted if name not in optional or name in there)


class Figures(Protocol):
    """A head's scores on a test split."""

    @property
    def records(self) -> int:
        """How many were measured."""

    @property
    def views(self) -> str:
        """single, ms+flip or 4x3."""

    def scores(self) -> Mapping[str, float | None]:
        """By the name they are logged under, the one that counts first: shares in 0..1, or numbers in a unit
        of which `TaskInfo` says how people read it and whether more is better; None where there was nothing
        to score."""

    def line(self) -> str:
        """One readable line, as people read scores; without any it says why."""

    def summary(self) -> Mapping[str, Any]:
        """Everything, as JSON takes it."""

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """Tables and pictures beyond the summary, as `<folder>/<name><suffix>.<ending>`."""


class Task(Protocol):
    """One task."""

    @property
    def training_targets(self) -> tuple[str, ...]:
        """The targets of a store that a step needs."""

    @property
    def test_targets(self) -> tuple[str, ...]:
        """The targets of a test store that its figures need."""

    @property
    def info(self) -> TaskInfo:
        """Names, units and order of its `Figures.scores`, see `pipelines.tasks.task_info`."""

    @property
    def source_kind(self) -> str:
        """What `predict` takes: images or videos."""

    @property
    def source_endings(self) -> tuple[str, ...]:
        """Of the files that `predict` looks for, in lower case with their dot."""

    def head_targets(self, stored: Arrays) -> Arrays:
        """What a head is given of one row's `training_targets`, on the host: arrays of any type and shape, of
        which the head alone knows the meaning."""

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """Targets like a data set's, for timing a step; `num_classes` is 0 where they name no classes."""

    def measure(
        self,
        head: Head,
        views: Iterable[TestView],
        *,
        views_name: str,
        device: torch.device,
        bf16: bool,
    ) -> Figures:
        """The figures of a head in evaluation mode on `device`; the views of one record follow each other."""

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """Predicts one file; writes pictures and JSON as `<base>.<...>`; returns the JSON's content.

        Raises SourceError where the file cannot be decoded, OSError where it cannot be read.
        """

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        """The main results of a `write_prediction`, in a few words."""
