"""The house: folders of few files, and no import circle, neither of files nor of folders.

Imports are read from the syntax tree, also those in functions and under TYPE_CHECKING: a circle hidden behind
a late import is a circle for a reader. `__main__.py` and a lazy `__init__.py` stand above everything and
are left out. The files directly in a folder count as one folder, beside its subfolders.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.test_layers import imports_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("stores", "extract", "heads", "pipelines")
FILES_A_FOLDER = 16
Graph = Mapping[str, set[str]]


def sources(*rooms: str) -> dict[str, str]:
    """Text of every Python file by its path from the project's root."""
    paths = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def is_above(path: str, text: str) -> bool:
    """Whether the file is a `__main__` or an `__init__` that resolves names on first use, or holds none."""
    if not path.endswith("/__init__.py"):
        return path.endswith("/__main__.py")
    body = ast.parse(text).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return "__getattr__" in names or not any(isinstance(n, ast.Import | ast.ImportFrom) for n in body)


def import_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of the files each file imports, by path."""
    nodes = {path for path, text in texts.items() if not is_above(path, text)}
    graph = {}
    for path in nodes:
        found = {target for each in imports_of(texts[path]) if (target := _file_of(each.module, texts))}
        graph[path] = (found & nodes) - {path}
    return graph


def _file_of(module: str, texts: Mapping[str, str]) -> str | None:
    """The file that holds a dotted name: of a module, of a package, or of a name in one of them."""
    parts = module.split(".")
    for end in (len(parts), len(parts) - 1):
        stem = "/".join(parts[:end])
        for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
            if candidate in texts:
                return candidate
    return None


def folder_graph(graph: Graph) -> dict[str, set[str]]:
    """Which folders the files of each folder import from."""
    folders: dict[str, set[str]] = {}
    for path, targets in graph.items():
        here = path.rpartition("/")[0]
        folders.setdefault(here, set()).update({target.rpartition("/")[0] for target in targets} - {here})
    return folders


def circles(graph: Graph) -> list[str]:
    """A shortest circle through each node that lies on one, each once, as "a -> b -> a"."""
    found = {}
    for start in sorted(graph):
        before: dict[str, str] = {}
        queue = [start]
        while queue and start not in before:
            node = queue.pop(0)
            for target in sorted(graph.get(node, ())):
                if target not in before:
                    before[target] = node
                    queue.append(target)
        if start in before:
            path = [start]
            while (node := before[path[-1]]) != start:
                path.append(node)
            found.setdefault(frozenset(path), " -> ".join([start, *reversed(path[1:]), start]))
    return sorted(found.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_circle_of_files(package: str) -> None:
    assert circles(import_graph(sources(package))) == []


def test_no_import_circle_of_folders() -> None:
    assert circles(folder_graph(import_graph(sources(*PACKAGES)))) == []


def test_folders_hold_few_files() -> None:
    files = sources(*PACKAGES, "tests", "benchmarks")
    counts = Counter(path.rpartition("/")[0] for path in files if not path.endswith("/__init__.py"))
    assert {folder: count for folder, count in counts.items() if count > FILES_A_FOLDER} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_late_imports_say_why(package: str) -> None:
    """In a comment on the line, or on the line above the first of several."""
    found = []
    for path, text in sources(package).items():
        late = sorted({node.lineno for node in _late_imports(ast.parse(text))})
        found += [f"{path}:{line}" for line in late if not _says_why(text.splitlines(), line, late)]
    assert not found, "\n".join(found)


def _late_imports(tree: ast.AST) -> Iterable[ast.stmt]:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = (node for function in functions for node in ast.walk(function))
    return (node for node in inside if isinstance(node, ast.Import | ast.ImportFrom))


def _says_why(lines: list[str], line: int, late: list[int]) -> bool:
    while "#" not in lines[line - 1]:
        line -= 1
        if line not in late:
            return lines[line - 1].lstrip().startswith("#")
    return True


LAZY = "from importlib import import_module\ndef __getattr__(name): ..."
IN_FUNCTION = "def f():\n    from a import x"
TYPING_ONLY = "if TYPE_CHECKING:\n    from a.x import g"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"a/x.py": "from a.y import f", "a/y.py": "import a.z", "a/z.py": ""}, []),
        ({"a/x.py": "from a.y import f", "a/y.py": IN_FUNCTION}, ["a/x.py -> a/y.py -> a/x.py"]),
        ({"a/x.py": "from a.y import f", "a/y.py": TYPING_ONLY}, ["a/x.py -> a/y.py -> a/x.py"]),
        ({"a/__init__.py": LAZY, "a/x.py": "import a"}, []),
        (
            {"a/__init__.py": "from a.x import f", "a/x.py": "import a"},
            ["a/__init__.py -> a/x.py -> a/__init__.py"],
        ),
    ],
)
def test_circles_of_files_are_found(texts: dict[str, str], expected: list[str]) -> None:
    assert circles(import_graph(texts)) == expected


def test_circles_of_folders_are_found() -> None:
    texts = {"a/x.py": "import a.b.y", "a/b/y.py": "from a.z import f", "a/z.py": ""}
    assert circles(import_graph(texts)) == []
    assert circles(folder_graph(import_graph(texts))) == ["a -> a/b -> a"]
