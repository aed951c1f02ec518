"""Pictures inside a page: smaller copies as JPEG, as many as its size allows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

WIDTH_PX = 900
"""Of a copy; narrower pictures keep their size."""
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the address that holds it."""

    name: str
    uri: str


def embedded(paths: Sequence[tuple[str, Path]], max_bytes: int) -> tuple[list[Picture], int]:
    """The first pictures that fit into `max_bytes` together, and how many are left out.

    Args:
        paths: name and file of each, the most important first.
    """
    found: list[Picture] = []
    taken = 0
    for name, path in paths:
        uri = _data_uri(path)
        if taken + len(uri) > max_bytes:
            break
        taken += len(uri)
        found.append(Picture(name, uri))
    return found, len(paths) - len(found)


def _data_uri(path: Path) -> str:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((WIDTH_PX, 4 * WIDTH_PX))
    file = BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
