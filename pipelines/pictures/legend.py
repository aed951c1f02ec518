"""Legend of class colours below a picture: a swatch and a name each, in rows that fit its width."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipelines.pictures.palette import palette

MAX_CLASSES = 40
"""Named; how many more there are is written behind them."""
MAX_PIXELS = 64 << 20
_LETTERS = 32


def with_legend(picture: Image.Image, labels: Sequence[int], class_names: Sequence[str]) -> Image.Image:
    """The picture (RGB) above a white strip with the colours and names of `labels`; itself without labels,
    and above MAX_PIXELS, of which no second copy fits beside a prediction.

    Args:
        labels: in the order in which they are listed; those without a name are left out.
    """
    named = [label for label in dict.fromkeys(labels) if label < len(class_names)]
    if not named or picture.width * picture.height > MAX_PIXELS:
        return picture
    size_px = max(10, min(22, picture.width // 50))
    font = ImageFont.load_default(size_px)
    colours = palette()
    texts = [(label, _shortened(class_names[label])) for label in named[:MAX_CLASSES]]
    rest = [(None, f"and {len(named) - MAX_CLASSES} more")] if len(named) > MAX_CLASSES else []
    places, x, y = [], 0, 0
    row_px, gap_px = size_px + 6, size_px // 2
    for label, text in [*texts, *rest]:
        width = round(font.getlength(text)) + size_px + 2 * gap_px
        if x and x + width > picture.width:
            x, y = 0, y + row_px
        places.append((label, text, x + gap_px // 2, y + 3))
        x += width
    whole = Image.new("RGB", (picture.width, picture.height + y + row_px), "white")
    whole.paste(picture)
    pen = ImageDraw.Draw(whole)
    for label, text, left, top in places:
        at = picture.height + top
        if label is not None:
            colour = tuple(map(int, colours[label]))
            pen.rectangle((left, at, left + size_px, at + size_px), fill=colour, outline="black")
        pen.text((left + size_px + gap_px // 2, at), text, font=font, fill="black")
    return whole


def _shortened(name: str) -> str:
    one_line = " ".join(name.split())
    return one_line if len(one_line) <= _LETTERS else one_line[: _LETTERS - 1] + "…"
