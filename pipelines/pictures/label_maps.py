"""Pictures of label maps: class colours over the image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipelines.pictures.palette import palette

OVERLAY_SHARE = 0.5
NAMED_SHARE = 0.02
"""Classes of fewer pixels have no room for their name."""
_NAMED_CELLS = 512
"""Longest side of the map that the places of names are found on."""
_BAND_PIXELS = 1 << 20  # of float64 colours: 25 MB
Labels = npt.NDArray[np.uint8]


def overlay(rgb: npt.NDArray[np.uint8], labels: Labels) -> Image.Image:
    """The image (H, W, 3) under the colours of its labels (H, W), borders between classes in white.

    Beside the picture, 4 bytes a pixel, it holds some rows.
    """
    height, width = labels.shape
    picture, colours = Image.new("RGB", (width, height)), OVERLAY_SHARE * palette()
    rows = max(1, _BAND_PIXELS // width)
    for first in range(0, height, rows):
        band = slice(first, first + rows)
        mixed = (1 - OVERLAY_SHARE) * rgb[band] + colours[labels[band]]
        mixed[_borders(labels[max(0, first - 1) : first + rows])[-len(mixed) :]] = 255
        picture.paste(Image.fromarray(mixed.round().astype(np.uint8)), (0, first))
    return picture


def name_classes(picture: Image.Image, labels: Labels, class_names: Sequence[str]) -> None:
    """Writes the name of each class that covers enough of a picture into the middle of its pixels.

    Args:
        picture: RGB of the size of the labels; drawn into.
        labels: (H, W); those without a name stay without one.
    """
    step = max(1, max(labels.shape) // _NAMED_CELLS)
    coarse = labels[::step, ::step]
    size_px = max(10, min(labels.shape) // 24)
    font, draw = ImageFont.load_default(size_px), ImageDraw.Draw(picture)
    for label in np.flatnonzero(np.bincount(coarse.reshape(-1)) >= NAMED_SHARE * coarse.size).tolist():
        if label >= len(class_names):
            continue
        rows, columns = np.nonzero(coarse == label)
        middle = np.argmin(
            (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
        )  # one of its own pixels
        draw.text(
            (float(columns[middle] * step), float(rows[middle] * step)),
            class_names[label],
            fill=(255, 255, 255),
            font=font,
            anchor="mm",
            stroke_width=max(1, size_px // 8),
            stroke_fill=(0, 0, 0),
        )


def _borders(labels: Labels) -> npt.NDArray[np.bool_]:
    """Where a label differs from the one to the left or above."""
    borders = np.zeros(labels.shape, bool)
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    borders[1:] |= labels[1:] != labels[:-1]
    return borders


def write_label_map(path: Path, labels: Labels) -> None:
    """Labels (H, W) as a PNG of palette colours: a viewer shows the classes, a reader gets the labels."""
    picture = Image.fromarray(labels)
    picture.putpalette(palette().tobytes())
    picture.save(path)


def write_legend(path: Path, class_names: Sequence[str]) -> None:
    """CSV of the value, the name and the colour of each class in a label map."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("value", "name", "red", "green", "blue"))
        for value, (name, colour) in enumerate(zip(class_names, palette().tolist(), strict=False)):
            writer.writerow((value, name, *colour))
