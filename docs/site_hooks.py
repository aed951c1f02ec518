"""Hooks of the documentation site (mkdocs.yml): README.md as its first page, names of documents as links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_DOCUMENT = re.compile(r"`docs/([\w-]+\.md)`")
_PICTURE = re.compile(r"\]\(docs/([\w./-]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds README.md as index.md."""
    readme = Path(config.config_file_path).parent / "README.md"
    files.append(File.generated(config, "index.md", content=readme.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links the documents that are named in code marks; pictures of README.md lie beside them."""
    markdown = _PICTURE.sub(r"](\1)", markdown)
    return _DOCUMENT.sub(r"[\1](\1)", markdown)
