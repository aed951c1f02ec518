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
_BAND_PIXELS = 1 << 20
_GREY = 64
"""Of the canvas where the image is not at hand."""


def draw_detections(rgb: Pixels, found: Detections, class_names: Sequence[str]) -> Pixels:
    """The image (H, W, 3) under its detections of at least SHOWN_SCORE, the highest score on top."""
    return np.asarray(detections_picture(rgb, found, class_names))


def detections_picture(rgb: Pixels, found: Detections, class_names: Sequence[str]) -> Image.Image:
    """As `draw_detections`, for large images: beside the picture, 4 bytes a pixel, it holds one mask."""
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
    return np.asarray(_drawn(rgb, everything.take(order.tolist()), [words[number] for number in order]))


def blank(original_hw: tuple[int, int]) -> Pixels:
    """A grey canvas in place of an image."""
    return np.full((*original_hw, 3), _GREY, np.uint8)


def _drawn(rgb: Pixels, found: Detections, texts: Sequence[str]) -> Image.Image:
    colours, picture = palette(), Image.fromarray(rgb)
    for label, counts in zip(found.labels, found.counts or (), strict=found.counts is not None):
        _mix_in(picture, mask_bitmap(counts, rgb.shape[:2]), colours[label])
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
    return picture


def _mix_in(picture: Image.Image, mask: Pixels, colour: Pixels) -> None:
    """Mixes a colour into the pixels of a mask, uint8 (H, W) of 0 and 1, some rows at a time."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return
    columns = np.flatnonzero(mask.any(0))
    first_x, stop_x = int(columns[0]), int(columns[-1]) + 1
    step = max(1, _BAND_PIXELS // (stop_x - first_x))
    for first in range(int(rows[0]), int(rows[-1]) + 1, step):
        stop = min(first + step, int(rows[-1]) + 1)
        inside = mask[first:stop, first_x:stop_x].astype(bool)
        part = np.array(picture.crop((first_x, first, stop_x, stop)))
        part[inside] = np.rint((1 - OVERLAY_SHARE) * part[inside] + OVERLAY_SHARE * colour)
        picture.paste(Image.fromarray(part), (first_x, first))


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
