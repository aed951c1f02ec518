"""README names every module and document, each as it is, and nothing else."""

import ast
import re
from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parents[1]
_PACKAGES = ("stores", "extract", "heads", "pipelines", "benchmarks")


def _map_of(package: str) -> dict[str, str]:
    """The files README lists of a package, and what it says of each."""
    section = (_PROJECT / "README.md").read_text().split(f"**{package}/**")[1].split("\n**")[0]
    return dict(re.findall(r"^\| `([^`]+\.py)` \| (.+) \|$", section, re.MULTILINE))


def _first_words(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())


@pytest.mark.parametrize("package", _PACKAGES)
def test_the_file_map_is_complete_and_says_what_the_files_say(package: str) -> None:
    folder = _PROJECT / package
    said = {str(path.relative_to(folder)): _first_words(path) for path in folder.rglob("*.py")}
    rows = _map_of(package)
    assert set(rows) == set(said)
    assert not [name for name, text in rows.items() if not said[name].startswith(text)]


def test_documents_are_named_and_names_are_documents() -> None:
    there = {f"docs/{path.name}" for path in (_PROJECT / "docs").glob("*.md")}
    texts = {
        path: path.read_text()
        for pattern in ("*.md", "*/**/*.md", "*/**/*.py")
        for path in _PROJECT.glob(pattern)
        if path.relative_to(_PROJECT).parts[0] in (*_PACKAGES, "docs", "tests") or path.parent == _PROJECT
    }
    named = {name for text in texts.values() for name in re.findall(r"docs/[\w-]+\.md", text)}
    assert named == there == set(re.findall(r"docs/[\w-]+\.md", texts[_PROJECT / "README.md"]))
