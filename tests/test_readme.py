"""The file map is what the files say, and README names every document."""

import re
import subprocess
import sys
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]
_PACKAGES = ("stores", "extract", "heads", "pipelines", "benchmarks")


def test_the_file_map_is_what_the_files_say() -> None:
    """`make file-map` changes nothing: run on a copy of the document, it writes the document again."""
    document = (_PROJECT / "docs" / "architecture.md").read_text()
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            "import file_map, sys; sys.stdout.write(file_map.with_file_map(sys.stdin.read()))",
        ],
        input=document,
        cwd=_PROJECT / "docs",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert made == document, "run `make file-map`"


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
