"""Which module holds a head: an index of names from the source text, so that one head loads one module.

A module of this package holds heads where it assigns `HEADS`, a dict of presets by name. Its keys are
literals, or f-strings over ranges and constants of the module; the presets' task is a literal. Another
installed package adds a head by an entry point in the group `permafrost.heads`, named by task and head, whose
value is a module with `HEADS`:

    [project.entry-points."permafrost.heads"]
    "segmentation.lookup" = "my_package.lookup"
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from heads.errors import HeadError

GROUP = "permafrost.heads"
"""Of entry points."""

TaskAndName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HeadModule:
    """Where a head is."""

    module: str
    package: str | None = None
    """The distribution that provides it; None: it is part of this project."""

    @property
    def origin(self) -> str:
        """For messages."""
        return f"{self.module} ({f'package {self.package}' if self.package else 'part of this project'})"


@cache
def head_index() -> Mapping[TaskAndName, HeadModule]:
    """Every head by (task, name), in the order of modules and presets. Imports none of them.

    Raises HeadError where two have one name, or a preset's name or task cannot be read from the text.
    """
    found: dict[TaskAndName, HeadModule] = {}
    for key, module in [*_own_heads(Path(__file__).parent), *_other_heads()]:
        other = found.setdefault(key, module)
        if other != module:
            raise HeadError(
                f"two heads for task {key[0]} are named {key[1]}: {other.origin} and {module.origin}; "
                + ("uninstall one" if module.package else "rename one")
            )
    return found


def head_names(task: str) -> tuple[str, ...]:
    """The names of a task's heads, by module. Raises HeadError for a task without heads."""
    names = tuple(name for known_task, name in head_index() if known_task == task)
    if not names:
        tasks = sorted({known_task for known_task, _ in head_index()})
        raise HeadError(f"no heads for task {task!r}; available: heads for {', '.join(tasks)}")
    return names


def find_head(name: str, task: str, package: str | None = None) -> HeadModule:
    """The module of a head.

    Args:
        package: that provided it when a run was made, for the error.

    Raises HeadError, listing the valid names, for an unknown one.
    """
    if (task, name) not in head_index():
        came_from = f"; it came from package {package}, which is not installed or no longer provides it"
        names = [known for known_task, known in head_index() if known_task == task]
        near = get_close_matches(name, names, n=1)
        raise HeadError(
            f"no head {name!r} for task {task!r}; available: {', '.join(names) or 'none'}"
            + (came_from if package else "")
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return head_index()[task, name]


def _own_heads(folder: Path) -> Iterator[tuple[TaskAndName, HeadModule]]:
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "\nHEADS" not in source:  # most files, which need not be parsed
            continue
        names = (folder.name, *path.relative_to(folder).with_suffix("").parts)
        for key in heads_of_source(source, str(path)):
            yield key, HeadModule(".".join(names))


def _other_heads() -> Iterator[tuple[TaskAndName, HeadModule]]:
    for entry in entry_points(group=GROUP):
        task, _, name = entry.name.partition(".")
        package = entry.dist.name if entry.dist else "of unknown name"
        if not name:
            raise HeadError(
                f"package {package} names a head {entry.name!r} in {GROUP}: expected <task>.<head>, such as "
                f"segmentation.{entry.name}; uninstall it or repair its entry points"
            )
        yield (task, name), HeadModule(entry.module, package)


def heads_of_source(source: str, what: str) -> list[TaskAndName]:
    """Task and name of every preset of a module, from its text.

    Raises HeadError, naming `what`, where a name or the task is neither a literal nor made of some.

    >>> heads_of_source('HEADS = {**{f"deep{n}": HeadPreset(task="depth") for n in (1, 2)}}', "a.py")
    [('depth', 'deep1'), ('depth', 'deep2')]
    """
    tree = ast.parse(source)
    constants = _constants(tree)
    tasks = {
        str(keyword.value.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "HeadPreset"
        for keyword in node.keywords
        if keyword.arg == "task" and isinstance(keyword.value, ast.Constant)
    }
    presets = next((value for name, value in _assignments(tree) if name == "HEADS"), None)
    if len(tasks) != 1 or not isinstance(presets, ast.Dict | ast.DictComp):
        raise HeadError(
            f"{what}: expected HEADS = {{...}} with presets of one literal task, found {sorted(tasks)}"
        )
    (task,) = tasks
    try:
        return [(task, name) for name in _keys(presets, constants)]
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise HeadError(f"{what}: the names of HEADS are not literals or made of some: {error}") from error


def _keys(presets: ast.expr, constants: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(presets, ast.DictComp):  # of which the keys alone are evaluated
        names = ast.Expression(ast.ListComp(elt=presets.key, generators=presets.generators))
        code = compile(ast.fix_missing_locations(names), "HEADS", "eval")
        yield from eval(code, {"__builtins__": {"range": range}, **constants})
    elif isinstance(presets, ast.Dict):
        for key, value in zip(presets.keys, presets.values, strict=True):
            yield from _keys(value, constants) if key is None else [str(ast.literal_eval(key))]
    else:
        raise ValueError(f"line {presets.lineno} is neither a dict nor a comprehension")


def _constants(tree: ast.Module) -> dict[str, Any]:
    """The module's names that stand for literals and ranges of them."""
    found: dict[str, Any] = {}
    for name, value in _assignments(tree):
        try:
            if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "range":
                found[name] = range(*map(ast.literal_eval, value.args))
            else:
                found[name] = ast.literal_eval(value)
        except ValueError:
            continue
    return found


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                yield target.id, node.value
