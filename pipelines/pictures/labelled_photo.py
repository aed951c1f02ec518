"""A picture of a classified photograph: what the backbone saw, and bars of the most likely classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.pictures.clips import short_name


def draw_classes(
    view_HWC: npt.NDArray[np.uint8], classes: Sequence[Mapping[str, Any]], picture: Path
) -> None:
    """Draws a view beside bars of its most likely classes into a PNG.

    Args:
        view_HWC: RGB, what the backbone saw.
        classes: of each class `name` and `probability`, the most likely first.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    photograph, bars = figure.subplots(1, 2, width_ratios=(1, 1.2))
    photograph.imshow(view_HWC)
    photograph.set_axis_off()
    names = [short_name(item["name"]) for item in classes]
    bars.barh(range(len(names)), [100 * item["probability"] for item in classes], color="tab:blue")
    bars.set_yticks(range(len(names)), names)
    bars.set(xlim=(0, 100), xlabel="probability, %")
    bars.invert_yaxis()
    figure.savefig(picture, dpi=120)
