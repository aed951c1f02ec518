"""Pictures of detections: masks, boxes, names and scores over the image, and grids of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipelines.metrics.coco_results import Detections, Truth, mask_bitmap
from pipelines.pictures.label_maps import OVERLAY_SHARE
from pipelines.pictures.label_places import Rectangle, label_place, leader
from pipelines.pictures.legend import with_legend
from pipelines.pictures.palette import palette

Pixels = npt.NDArray[np.uint8]

SHOWN_SCORE = 0.3
"""Detections below it are left out of pictures."""
SHOWN_IOU, SHOWN_INSIDE = 0.45, 0.75
"""Overlap with a higher detection from which one is left out of pictures."""
_BAND_PIXELS = 1 << 20
_GREY = 64
"""Of the canvas where the image is not at hand."""


def draw_detections(rgb: Pixels, found: Detections, class_names: Sequence[str]) -> Pixels:
    """The image (H, W, 3) under its detections of at least SHOWN_SCORE, the highest score on top."""
    return np.asarray(detections_picture(rgb, found, class_names))


def detections_picture(rgb: Pixels, found: Detections, class_names: Sequence[str]) -> Image.Image:
    """As `draw_detections`, for large images: beside the picture, 4 bytes a pixel, it holds one mask."""
    kept = found.take(shown_detections(found)[::-1])
    texts = [
        f"{class_names[label]} {score:.2f}" for label, score in zip(kept.labels, kept.scores, strict=True)
    ]
    return _drawn(rgb, kept, texts)


def overlay_picture(rgb: Pixels, found: Detections, class_names: Sequence[str]) -> Image.Image:
    """`detections_picture` with a legend of the classes it shows, the most frequent first."""
    labels = found.labels[shown_detections(found)]
    counts = np.bincount(labels.astype(np.int64)) if len(labels) else np.zeros(0, np.int64)
    order = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
    return with_legend(detections_picture(rgb, found, class_names), order, class_names)


def shown_detections(found: Detections) -> list[int]:
    """Those of at least SHOWN_SCORE, the highest first, without boxes that lie on a higher one: of any class
    at an IoU of SHOWN_IOU, of its own class mostly inside it. Scores count all of them."""
    order = np.argsort(-found.scores, kind="stable")
    kept: list[int] = []
    for number in order[found.scores[order] >= SHOWN_SCORE].tolist():
        if not any(_covers(found, other, number) for other in kept):
            kept.append(number)
    return kept


def _covers(found: Detections, other: int, number: int) -> bool:
    a, b = found.boxes[other].astype(float), found.boxes[number].astype(float)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = [float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (a, b)]
    if not shared:
        return False
    same = found.labels[other] == found.labels[number]
    return shared / (sum(areas) - shared) >= SHOWN_IOU or bool(same and shared / min(areas) >= SHOWN_INSIDE)


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
    font, line_px = ImageFont.load_default(size_px), max(2, size_px // 6)
    fills = [tuple(map(int, colours[label])) for label in found.labels]
    for (x1, y1, x2, y2), fill in zip(found.boxes.tolist(), fills, strict=True):
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=fill, width=line_px)
    places: dict[int, Rectangle] = {}
    # The last box lies on top; its label is placed first. Lines are drawn below all labels.
    for number in range(len(texts))[::-1]:
        left, top, right, bottom = pen.textbbox((0, 0), texts[number], font=font)
        box, size = found.boxes[number].tolist(), (right - left + 2, bottom - top + 2)
        place = label_place(box, size, picture.size, list(places.values()))
        if place is None:  # the picture is full of labels, or smaller than one
            continue
        places[number] = place
        if line := leader(box, place):
            pen.line(line, fill=fills[number], width=line_px)
    for number, place in places.items():
        pen.rectangle(place, fill=fills[number])
        ink = "white" if sum(fills[number]) < 380 else "black"
        # Anchored at the corner of its ink, wherever that lies in the font's box.
        left, top, *_ = pen.textbbox((0, 0), texts[number], font=font)
        pen.text((place[0] + 1 - left, place[1] + 1 - top), texts[number], font=font, fill=ink)
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
    every = [picture for pictures in rows.values() for picture in pictures]
    tallest = max((len(picture) for picture in every), default=1)
    widest = max((picture.shape[1] for picture in every), default=1)
    figure = Figure(figsize=(3.2 * max(1, columns), 3.0 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), max(1, columns), squeeze=False)
    for place, (name, pictures) in enumerate(rows.items()):
        for number, axis in enumerate(axes[place]):
            axis.set(xticks=[], yticks=[])
            if number < len(pictures):
                # One size of axes: pictures of other shapes stand in its middle.
                height, width = pictures[number].shape[:2]
                scale = min(tallest / height, widest / width)
                axis.imshow(
                    pictures[number], interpolation="antialiased",
                    extent=(-width * scale / 2, width * scale / 2, height * scale / 2, -height * scale / 2),
                )  # fmt: skip
            axis.set(xlim=(-widest / 2, widest / 2), ylim=(tallest / 2, -tallest / 2), aspect="equal")
        axes[place][0].set_ylabel(name)
    figure.savefig(path, dpi=110)
