"""Text of pictures: shortened in the middle, in one line, in letters that the font has."""

from __future__ import annotations


def shortened(text: str, letters: int) -> str:
    """`text` in so many letters, its middle left out where it has more.

    >>> shortened("m2f-pd1-td3", 24), shortened("a-very-long-name-of-a-head", 12)
    ('m2f-pd1-td3', 'a-ver…a-head')
    """
    if len(text) <= letters:
        return text
    return f"{text[: (letters - 1) // 2]}…{text[len(text) - letters // 2 :]}"


def drawable(text: str) -> str:
    """`text` in one line, with ? for letters that the font of pictures lacks: matplotlib warns of each."""
    # Late: tables shorten names too, and matplotlib takes a second to load.
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    one_line = " ".join(text.split())
    return "".join(letter if ord(letter) in known else "?" for letter in one_line)
