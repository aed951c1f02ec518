"""HTML page as one file: a Jinja template with its style, script, charts and pictures inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.units import duration, gigabytes

MAX_BYTES = 5_000_000
"""Of a page, so that a mail carries it."""
_FOLDER = Path(__file__).parent


def write_page(path: Path, template: str, **values: Any) -> int:
    """Writes a page, in UTF-8, and returns its bytes.

    Args:
        template: a file of this folder, such as runs.html.
        values: of its variables. A missing one is an error; texts are escaped, `Markup` is not.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"size": gigabytes, "duration": duration}
    inside = {name: Markup((_FOLDER / file).read_text()) for name, file in _INSIDE.items()}
    text = environment.get_template(template).render(**inside, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return len(text.encode())


_INSIDE = {"style": "page.css", "script": "page.js"}
