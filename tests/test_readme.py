"""README's file map names every module, and nothing else."""

import ast
import re
from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parents[1]
_PACKAGES = ("stores", "extract", "heads", "pipelines", "benchmarks")


def _map_of(package: str) -> set[str]:
    """The files README lists of a package."""
    section = (_PROJECT / "README.md").read_text().split(f"**{package}/**")[1].split("\n**")[0]
    return set(re.findall(r"^\| `([^`]+\.py)` \| .+ \|$", section, re.MULTILINE))


@pytest.mark.parametrize("package", _PACKAGES)
def test_the_file_map_is_complete(package: str) -> None:
    folder = _PROJECT / package
    modules = {str(path.relative_to(folder)): path for path in folder.rglob("*.py")}
    assert all(ast.get_docstring(ast.parse(path.read_text())) for path in modules.values())
    assert _map_of(package) == set(modules)
