"""Best and worst records of a classification: their picture, class, and what they were taken for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.accuracy.named_records import Named
from pipelines.accuracy.record_picks import SHOWN
from pipelines.units import percent

ViewOf = Callable[[str], npt.NDArray[np.uint8]]
"""Key of a record -> what a backbone sees of it, RGB (H, W, 3); grey where its file is not at hand."""


def margin(record: Named) -> float:
    """Probability of the record's class less the largest of the others; below 0 where it is named wrong.

    Outside of the most likely classes that are known the record's own counts as 0.

    >>> margin(Named(key="a", label=2, best=(1, 2), probabilities=(0.75, 0.25)))
    -0.5
    """
    others = [p for k, p in zip(record.best, record.probabilities, strict=True) if k != record.label]
    return _own(record) - max(others, default=0.0)


def _own(record: Named) -> float:
    of_class = dict(zip(record.best, record.probabilities, strict=True))
    return of_class.get(record.label, 0.0)


def draw_named_records(
    named: Sequence[Named], folder: Path, suffix: str, class_names: Sequence[str], view_of: ViewOf
) -> None:
    """worst-records.png and best-records.png: the records of the lowest and the highest margin."""
    # Late: drawing loads PIL, which training does not need.
    from pipelines.pictures.clips import short_name
    from pipelines.pictures.records import RecordPicture, write_records

    ordered = sorted(named, key=lambda record: (margin(record), record.key))
    for name, chosen in (("worst", ordered[:SHOWN]), ("best", ordered[::-1][:SHOWN])):
        pictures = []
        for record in chosen:
            text = f"\n{short_name(class_names[record.label])}"
            if record.label in record.best:
                text += f" {percent(_own(record))} %"
            if record.best[0] != record.label:
                taken_for = short_name(class_names[record.best[0]])
                text += f"\ntaken for {taken_for} {percent(record.probabilities[0])} %"
            pictures.append(RecordPicture(record.key, text, {"image": view_of(record.key)}))
        write_records(folder / f"{name}-records{suffix}.png", pictures)
