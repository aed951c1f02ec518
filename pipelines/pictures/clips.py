"""Pictures of video classification: the confusion matrix, and a clip with its predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SHOWN_CLASSES = 12
SHOWN_FRAMES = 8
_NAME_LETTERS = 28


def worst_classes(counts: npt.NDArray[np.int64], most: int) -> tuple[list[int], list[int]]:
    """Rows and columns of a confusion matrix (K, K) that are worth looking at.

    Returns:
        The `most` classes of which the smallest share is right, of those that occur, the worst first; and
        these followed by whatever else most of their records were taken for.

    >>> worst_classes(np.array([[4, 0, 0, 0], [0, 1, 0, 3], [1, 0, 3, 0], [0, 0, 0, 0]]), 1)
    ([1], [1, 3])
    """
    seen = counts.sum(1)
    occurring = [k for k in range(len(counts)) if seen[k]]
    rows = sorted(occurring, key=lambda k: (counts[k, k] / seen[k], -seen[k], k))[:most]
    rivals = [int(np.argmax(np.where(np.arange(len(counts)) == k, -1, counts[k]))) for k in rows]
    taken = [rival for k, rival in zip(rows, rivals, strict=True) if counts[k, rival]]
    return rows, list(dict.fromkeys([*rows, *taken]))


def draw_confusion(counts: npt.NDArray[np.int64], class_names: Sequence[str], picture: Path) -> None:
    """Draws the worst classes' rows of a confusion matrix (K, K), as shares in percent, into a PNG."""
    rows, columns = worst_classes(counts, SHOWN_CLASSES)
    shares = 100 * counts[np.ix_(rows, columns)] / np.maximum(counts[rows].sum(1, keepdims=True), 1)
    figure = Figure(figsize=(3.5 + 0.45 * len(columns), 2.5 + 0.4 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="taken for", ylabel="class")
    if rows:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        if share:
            axes.text(x, y, f"{share:.0f}", ha="center", va="center", color="w" if share > 60 else "k")
    axes.set_xticks(
        range(len(columns)), [short_name(class_names[k]) for k in columns], rotation=60, ha="right"
    )
    axes.set_yticks(range(len(rows)), [f"{short_name(class_names[k])} ({counts[k].sum()})" for k in rows])
    axes.set_title(confusion_title(len(rows), int((counts.sum(1) > 0).sum())), fontsize=10)
    figure.savefig(picture, dpi=120)


def confusion_title(shown: int, occurring: int) -> str:
    """What the rows of the picture are, true also where all classes are shown or all are right.

    >>> confusion_title(12, 400), confusion_title(3, 3)
    ('% of the records of a class; 12 of 400 classes, the least often right first', \
'% of the records of a class; all 3 classes, the least often right first')
    """
    which = f"all {shown}" if shown == occurring else f"{shown} of {occurring}"
    return f"% of the records of a class; {which} classes, the least often right first"


def draw_prediction(clip_THWC: npt.NDArray[np.uint8], classes: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws frames of a clip above bars of its most likely classes into a PNG.

    Args:
        clip_THWC: RGB, what the head's backbone saw of one view.
        classes: of each class `name` and `probability`, the most likely first.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    frames, bars = figure.subplots(2, 1, height_ratios=(1, 1.3))
    frames.imshow(_strip(clip_THWC))
    frames.set_axis_off()
    names = [short_name(item["name"]) for item in classes]
    bars.barh(names, [100 * item["probability"] for item in classes], color="tab:blue")
    bars.set(xlim=(0, 100), xlabel="probability, %")
    bars.invert_yaxis()
    figure.savefig(path, dpi=120)


def draw_clips(clips: Sequence[tuple[npt.NDArray[np.uint8], str]], picture: Path) -> None:
    """Draws clips, RGB (T, H, W, 3), one below the other with a line of text above each, into a PNG."""
    figure = Figure(figsize=(10, 1.35 * len(clips)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (clip_THWC, text) in zip(figure.subplots(len(clips), squeeze=False).flat, clips, strict=True):
        axes.imshow(_strip(clip_THWC))
        axes.set_title(text, loc="left", fontsize=9)
        axes.set_axis_off()
    figure.savefig(picture, dpi=120)


def _strip(clip_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Some frames of a clip side by side, the first and the last among them."""
    shown = np.linspace(0, len(clip_THWC) - 1, min(SHOWN_FRAMES, len(clip_THWC))).round().astype(int)
    return np.concatenate(list(clip_THWC[shown]), axis=1)


def short_name(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
