"""Colour, dash and marker of each run or series, the same in every chart, apart in grey and for colour-blind
readers."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
"""Of Okabe and Ito (jfly.uni-koeln.de/color); repeated with another dash."""
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def colour_of(number: int) -> str:
    """
    >>> colour_of(0), colour_of(8) == colour_of(0)
    ('#0072B2', True)
    """
    return COLOURS[number % len(COLOURS)]


def dash_of(number: int) -> str:
    return DASHES[number // len(COLOURS) % len(DASHES)]


def marker_of(number: int) -> str:
    return MARKERS[number % len(MARKERS)]
