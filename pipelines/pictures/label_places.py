"""Places of box labels: inside the picture, and none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

Rectangle = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


def label_place(
    box: Sequence[float], size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """The first free place for a label of a box; None where the whole picture is taken.

    Tried are: above and below the box and inside at its top and bottom, each from its left, at its right and
    in its middle; then the places nearest to the box, see `leader`.

    Args:
        box: x1, y1, x2, y2.
        size: width and height of the label.
        picture: width and height.
        taken: places of other labels.

    >>> label_place((10, 20, 50, 60), (30, 8), (100, 100), [])
    (10, 12, 40, 20)
    >>> label_place((10, 20, 50, 60), (30, 8), (100, 100), [(0, 10, 60, 19)])
    (10, 20, 40, 28)
    """
    width, height = size
    if width > picture[0] or height > picture[1]:
        return None
    for x, y in chain(_corners(box, width, height), _anywhere(box, size, picture)):
        left = min(max(0, x), picture[0] - width)
        top = min(max(0, y), picture[1] - height)
        place = (left, top, left + width, top + height)
        if not any(_meet(place, other) for other in taken):
            return place
    return None


def _corners(box: Sequence[float], width: float, height: float) -> Iterator[tuple[float, float]]:
    x1, y1, x2, y2 = box
    for y in (y1 - height, y1, y2 - height, y2):
        for x in (x1, x2 - width, x1 + (x2 - x1 - width) / 2):
            yield x, y


def _anywhere(
    box: Sequence[float], size: tuple[float, float], picture: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """Places all over the picture, by the length of their leaders."""
    width, height = size
    columns = np.arange(0, picture[0] - width + 1, width / 4)
    rows = np.arange(0, picture[1] - height + 1, height / 2)
    x, y = (axis.ravel() for axis in np.meshgrid(columns, rows))
    across = np.maximum(0, np.maximum(box[0] - x - width, x - box[2]))
    down = np.maximum(0, np.maximum(box[1] - y - height, y - box[3]))
    for number in np.argsort(np.hypot(across, down), kind="stable").tolist():
        yield float(x[number]), float(y[number])


def leader(box: Sequence[float], place: Rectangle) -> tuple[float, float, float, float] | None:
    """The shortest line x1, y1, x2, y2 from a label to its box; None where they touch.

    >>> leader((10, 20, 50, 60), (10, 12, 40, 20)), leader((10, 20, 50, 60), (60, 30, 90, 38))
    (None, (60, 30, 50, 30))
    """
    (x1, x2), (y1, y2) = (_nearest(box[axis::2], place[axis::2]) for axis in (0, 1))
    return (x1, y1, x2, y2) if (x1, y1) != (x2, y2) else None


def _nearest(of_box: Sequence[float], of_place: Sequence[float]) -> tuple[float, float]:
    """The points of the label and of the box that are nearest to each other along one axis."""
    shared = max(of_box[0], of_place[0])
    if shared <= min(of_box[1], of_place[1]):
        return shared, shared
    return (of_place[1], of_box[0]) if of_place[1] < of_box[0] else (of_place[0], of_box[1])


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
