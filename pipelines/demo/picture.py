"""The demo's picture: held-out scenes, their truth, and the predictions of a trained run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from extract.datasets.ade20k import open_dataset
from extract.sources.byte_sources import decode_image
from pipelines.demo.made.scenes import CLASS_LABELS
from pipelines.live.run_model import load_run

COLOURS: Mapping[str, str] = {
    "sky": "#8fd3ff",
    "mountain": "#8a6fb0",
    "building": "#d9455f",
    "wall": "#f28e2b",
    "tree": "#1b7837",
    "grass": "#8fd14f",
    "water": "#1f5fd6",
    "road": "#5a5a5a",
    "field": "#f2d65c",
    "fence": "#7b3f00",
    "rock": "#b7b0a6",
    "path": "#f7a8c8",
}
"""Class -> its colour in the picture."""
OTHER = "#000000"
"""Colour of labels that no made scene holds."""

Pixels = npt.NDArray[np.uint8]


def draw_predictions(data: Path, run: Path, picture: Path, scenes: int) -> None:
    """Writes a PNG of the first `scenes` validation scenes: image, truth and prediction below each other.

    Args:
        data: folder of the made data set.
        run: folder of the trained run; its model sees the images alone, no store.
    """
    dataset, model = open_dataset(data, "validation"), load_run(run)
    columns = []
    for index in range(scenes):
        rgb = decode_image(dataset.read_source(index))
        predicted = model([rgb])[0].argmax(0).numpy().astype(np.uint8)
        columns.append((rgb, _coloured(dataset.read_truth(index)), _coloured(predicted)))
    draw_columns(columns, COLOURS, picture)


def _coloured(labels: Pixels) -> Pixels:
    """Labels (H, W) -> their colours (H, W, 3)."""
    table = np.tile(np.array(_rgb(OTHER), np.uint8), (256, 1))
    for name, label in CLASS_LABELS.items():
        table[label] = _rgb(COLOURS[name])
    return table[labels]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def draw_columns(
    columns: Sequence[tuple[Pixels, Pixels, Pixels]], colours: Mapping[str, str], picture: Path
) -> None:
    """Writes a PNG of images, their truth and predictions below each other, and a legend.

    Args:
        columns: image, truth and prediction of each, uint8 (H, W, 3).
        colours: of the classes by name, as #rrggbb.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a second to load, at the end of a demo only
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(2.2 * max(3, len(columns)), 7.4))
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(columns), squeeze=False)
    for column, images in enumerate(columns):
        for row, image in enumerate(images):
            axes[row][column].imshow(image, interpolation="nearest")
            axes[row][column].set(xticks=[], yticks=[])
    for row, title in enumerate(("image", "truth", "prediction")):
        axes[row][0].set_ylabel(title)
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc="lower center", ncols=6, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(picture, dpi=110)
