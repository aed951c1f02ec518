"""Places of box labels: inside the picture, and none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Rectangle = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


def label_place(
    box: Sequence[float], size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """The first free place for a label of a box; None where all are taken.

    Tried are: above and below the box and inside at its top and bottom, each from its left and at its right.

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
    for x, y in _corners(box, width, height):
        left = min(max(0, x), picture[0] - width)
        top = min(max(0, y), picture[1] - height)
        place = (left, top, left + width, top + height)
        if left >= 0 and top >= 0 and not any(_meet(place, other) for other in taken):
            return place
    return None


def _corners(box: Sequence[float], width: float, height: float) -> Iterator[tuple[float, float]]:
    x1, y1, x2, y2 = box
    for y in (y1 - height, y1, y2 - height, y2):
        for x in (x1, x2 - width, x1 + (x2 - x1 - width) / 2):
            yield x, y


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
