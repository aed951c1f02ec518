"""The file map of docs/architecture.md: every folder and file, with the first paragraph of its docstring.

python docs/file_map.py          # rewrites the map in docs/architecture.md
"""

import ast
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENT = PROJECT / "docs" / "architecture.md"
BEGIN, END = "<!-- file map: `make file-map` writes it -->\n", "<!-- end of the file map -->\n"
ROOMS = ("stores", "extract", "heads", "pipelines", "benchmarks")


def first_paragraph(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())


def folders(room: str) -> list[Path]:
    """A package and its subpackages, parents first."""
    files = (PROJECT / room).rglob("*.py")
    return sorted({path.parent for path in files if "__pycache__" not in path.parts})


def file_map() -> str:
    """The map as Markdown: a table a folder."""
    lines: list[str] = []
    for room in ROOMS:
        for folder in folders(room):
            face = folder / "__init__.py"
            lines += ["", f"### `{folder.relative_to(PROJECT)}/`", ""]
            if face.exists():
                lines += [first_paragraph(face), ""]
            files = sorted(path for path in folder.glob("*.py") if path != face)
            if files:
                lines += ["| file | holds |", "|---|---|"]
                lines += [f"| `{path.name}` | {first_paragraph(path)} |" for path in files]
    return "\n".join([*lines, "", ""])


def with_file_map(text: str) -> str:
    """The document with the map of today between its two markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{file_map()}{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_file_map(DOCUMENT.read_text()))
