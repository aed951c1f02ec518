"""Boxes of persons for `predict`: of a file, or detected by a trained run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from extract.datasets.persons.box_file import BoxFile, read_box_file
from extract.datasets.persons.person_annotations import clipped
from extract.views.persons.person_box import Xywh
from pipelines.errors import UsageError
from pipelines.live.run_model import RunModel, load_run
from pipelines.metrics.merge_views import detections
from pipelines.runs.head_file import is_head_file

Pixels = npt.NDArray[np.uint8]
LEAST_SCORE = 0.3
"""Detections of a lower score are not looked at."""
_PERSON = "person"


class PersonBoxes(Protocol):
    """Where persons are looked for in a picture."""

    def of(self, source: Path, rgb: Pixels) -> Sequence[tuple[Xywh, float]]:
        """Boxes, x y width height in pixels, with their scores."""


class FileBoxes:
    """Boxes of a file, found by the name of the picture, or by the number that its name is."""

    def __init__(self, boxes: BoxFile) -> None:
        self._boxes = boxes

    def of(self, source: Path, rgb: Pixels) -> Sequence[tuple[Xywh, float]]:
        number = int(source.stem) if source.stem.isdecimal() else None
        return [(each.xywh, each.score) for each in self._boxes.of(number, source.stem)]


class DetectedBoxes:
    """Boxes of a trained detection run: of its class `person`, else of all its classes."""

    def __init__(self, model: RunModel) -> None:
        self._model = model
        names = model.class_names
        self._labels = {names.index(_PERSON)} if _PERSON in names else set(range(len(names)))

    def of(self, source: Path, rgb: Pixels) -> Sequence[tuple[Xywh, float]]:
        hw = (rgb.shape[0], rgb.shape[1])
        found = detections(self._model([rgb])[0], hw)
        kept: list[tuple[Xywh, float]] = []
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            box = clipped((x1, y1, x2 - x1, y2 - y1), hw)
            if label in self._labels and score >= LEAST_SCORE and box is not None:
                kept.append((box, score))
        return kept


def open_boxes(path: str, options: Mapping[str, Any]) -> PersonBoxes:
    """The boxes of a file (extract.datasets.persons.box_file) or of a run.

    Args:
        path: a JSON file, the folder of a run, or a file that `export --format safetensors` wrote.
        options: device of a run's model, as `device=`.

    Raises UsageError for a run of another task; DatasetLayoutError, OSError.
    """
    where = Path(path)
    if where.is_file() and not is_head_file(where):
        return FileBoxes(read_box_file(where))
    if not where.exists():
        raise UsageError(f"--boxes {path}: there is no such file of boxes and no such run")
    model = load_run(path, **options)
    if model.head.task != "detection":
        raise UsageError(f"--boxes {path}: a run of {model.head.task}, expected one of detection")
    return DetectedBoxes(model)
