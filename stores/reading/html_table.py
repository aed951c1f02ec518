"""HTML tables of two columns, which notebooks show in place of a repr."""

from __future__ import annotations

import html
from collections.abc import Mapping


def html_table(title: str, facts: Mapping[str, object]) -> str:
    """A small table with the facts' names to the left; texts are escaped.

    >>> html_table("Store", {"rows": 3})
    '<table><caption>Store</caption><tr><th>rows</th><td>3</td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
