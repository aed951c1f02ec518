"""Page that lists the stores and runs of a folder, with links to their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pipelines.pages.page import write_page
from stores.format.printable import escaped


@dataclass(frozen=True, slots=True)
class Entry:
    """A store or a run."""

    kind: str
    """store or run."""
    name: str
    """Its path below the folder."""
    is_changing: bool
    """Whether it is being written."""

    @property
    def shown(self) -> str:
        return escaped(self.name)

    @property
    def link(self) -> str:
        return f"/{self.kind}/{quote(self.name)}"


def write_index_page(folder: str, entries: Sequence[Entry], path: Path) -> int:
    """Writes the page and returns its bytes."""
    return write_page(
        path,
        "index.html",
        title=f"Permafrost: {escaped(folder)}",
        stores=[entry for entry in entries if entry.kind == "store"],
        runs=[entry for entry in entries if entry.kind == "run"],
    )
