"""Pictures of single records: image, truth and prediction below each other, with key and score above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.pictures.drawable_text import drawable, shortened
from pipelines.pictures.legend import with_legend

Pixels = npt.NDArray[np.uint8]
_COLUMNS = 4
_INCHES = 2.6
_KEY_LETTERS = 24


@dataclass(frozen=True, slots=True, eq=False)
class RecordPicture:
    """One record."""

    key: str
    text: str
    """Its score, with its unit; further lines follow line breaks."""
    rows: Mapping[str, Pixels]
    """Name of a row, such as truth -> RGB (H, W, 3); the same names for all records."""


def write_records(
    path: Path, records: Sequence[RecordPicture], labels: Sequence[int] = (), class_names: Sequence[str] = ()
) -> None:
    """Writes a PNG, four records side by side; none without records.

    Args:
        labels: classes that a legend below names with their colours.
    """
    # Late: drawing takes a second to load, and is needed only at the end.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not records:
        return
    names = list(records[0].rows)
    groups = [records[at : at + _COLUMNS] for at in range(0, len(records), _COLUMNS)]
    columns = len(groups[0])
    figure = Figure(
        figsize=(_INCHES * columns + 0.4, (_INCHES * 0.8 * len(names) + 0.35) * len(groups)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(groups) * len(names), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for place, group in enumerate(groups):
        for column in range(columns):
            for row, name in enumerate(names):
                axis = axes[place * len(names) + row][column]
                if column >= len(group):
                    axis.set_axis_off()
                    continue
                axis.imshow(group[column].rows[name])
                if column == 0:
                    axis.set_ylabel(name)
                if row == 0:
                    title = f"{shortened(group[column].key, _KEY_LETTERS)}: {group[column].text}"
                    lines = "\n".join(map(drawable, title.splitlines()))
                    axis.set_title(lines, fontsize=8, parse_math=False)
    figure.savefig(path, dpi=100)
    with Image.open(path) as opened:
        drawn = opened.convert("RGB")
    with_legend(drawn, labels, class_names).save(path)
