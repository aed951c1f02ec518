"""Pictures of detections: masks, boxes, names and scores over the image, and grids of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipelines.metrics.coco_results import Detections, Truth, mask_bitmap
from pipelines.pictures.label_maps import OVERLAY_SHARE, palette

Pixels = npt.NDArray[np.uint8]

SHOWN_SCORE = 0.3
"""Detections below it are left out of pictures."""
_GREY = 64
"""Of the canvas where the image is not at hand."""


def draw_detections(rgb: Pixels, found: Detections, class_names: Sequence[str]) -> Pixels:
    """The image (H, W, 3) under its detections of at least SHOWN_SCORE, the highest score on top."""
    shown = [number for number in np.argsort(found.scores) if found.scores[number] >= SHOWN_SCORE]
    kept = found.take(shown)
    texts = [
        f"{class_names[label]} {score:.2f}" for label, score in zip(kept.labels, kept.scores, strict=True)
    ]
    return _drawn(rgb, kept, texts)


def draw_truth(rgb: Pixels, truth: Truth, class_names: Sequence[str]) -> Pixels:
    """The image (H, W, 3) under its annotated instances, the largest below."""
    order = np.argsort(-truth.area)
    words = [
        f"{class_names[label]}{' (crowd)' if crowd else ''}"
        for label, crowd in zip(truth.labels, truth.crowd, strict=True)
    ]
    corners = np.concatenate([truth.xywh[:, :2], truth.xywh[:, :2] + truth.xywh[:, 2:]], axis=1)
    everything = Detections(
        boxes=corners.astype(np.float32),
        scores=np.ones(len(truth.labels), np.float32),
        labels=truth.labels,
        counts=truth.counts,
    )
    return _drawn(rgb, everything.take(order.tolist()), [words[number] for number in order])


def blank(original_hw: tuple[int, int]) -> Pixels:
    """A grey canvas in place of an image."""
    return np.full((*original_hw, 3), _GREY, np.uint8)


def _drawn(rgb: Pixels, found: Detections, texts: Sequence[str]) -> Pixels:
    colours = palette()
    mixed = rgb.astype(np.float32)
    for label, counts in zip(found.labels, found.counts or (), strict=found.counts is not None):
        inside = mask_bitmap(counts, rgb.shape[:2]).astype(bool)
        mixed[inside] = (1 - OVERLAY_SHARE) * mixed[inside] + OVERLAY_SHARE * colours[label]
    picture = Image.fromarray(mixed.round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    size_px = max(9, min(rgb.shape[:2]) // 40)
    font = ImageFont.load_default(size_px)
    for box, label, text in zip(found.boxes.tolist(), found.labels, texts, strict=True):
        x1, y1, x2, y2 = box
        colour = tuple(map(int, colours[label]))
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=max(1, size_px // 8))
        corner = (x1, max(0, y1 - size_px - 2))
        pen.rectangle(pen.textbbox(corner, text, font=font), fill=colour)
        pen.text(corner, text, font=font, fill="white" if sum(colour) < 450 else "black")
    return np.asarray(picture)


def write_grid(path: Path, rows: Mapping[str, Sequence[Pixels]]) -> None:
    """Writes a PNG of rows of pictures under each other, each row with its name; all have as many."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a second to load, and only at the end
    from matplotlib.figure import Figure

    columns = max(len(pictures) for pictures in rows.values())
    figure = Figure(figsize=(3.2 * max(1, columns), 3.0 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), max(1, columns), squeeze=False)
    for place, (name, pictures) in enumerate(rows.items()):
        for number, axis in enumerate(axes[place]):
            axis.set(xticks=[], yticks=[])
            if number < len(pictures):
                axis.imshow(pictures[number], interpolation="antialiased")
        axes[place][0].set_ylabel(name)
    figure.savefig(path, dpi=110)
