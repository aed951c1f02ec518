"""The layering: stores below extract and heads, pipelines above; extract and heads never meet.

Imports are read from the source, wherever in a file they stand, because a forbidden import inside a
function that no test calls would pass any check at run time. A few imports are also run, to catch what no
parser sees.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("stores", "extract", "heads", "pipelines")

ALLOWED = {
    "stores": {"stores", "numpy", "zarr", "numcodecs", "crc32c", "blake3", "obstore", "xarray"},
    "heads": {"heads", "torch", "torchvision.ops", "numpy", "scipy"},
}
"""What a layer may import besides the standard library; a name allows its submodules."""
FORBIDDEN = {"extract": {"heads", "pipelines"}, "pipelines": set[str]()}
HEAVY = {"torch", "timm", "lightning", "zarr"}
STARTS_FAST = {
    *("pipelines/__main__.py", "pipelines/cli/arguments.py", "pipelines/cli/given.py"),
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "pipelines" / "config").glob("*.py")),
}
"""Loaded before the arguments are read: `--help` must not wait for torch."""


@dataclass(frozen=True)
class Import:
    line: int
    module: str
    """Absolute dotted name, for `from a import b` that of b; "." for a relative import."""
    from_import: bool = False
    at_import: bool = True
    """Runs when the file is imported."""


def imports_of(source: str) -> Iterator[Import]:
    """Every import and every call of import_module or __import__ with a literal, also inside functions."""
    yield from _walk(ast.parse(source), at_import=True)


def _walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(node.lineno, alias.name, at_import=at_import)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:  # `from torchvision import ops` imports torchvision.ops
            module = "." if node.level else f"{node.module}.{alias.name}".removesuffix(".*")
            yield Import(node.lineno, module, from_import=True, at_import=at_import)
    elif isinstance(node, ast.Call) and _is_import_call(node.func):
        for argument in [*node.args[:1], *(k.value for k in node.keywords if k.arg == "name")]:
            if (text := _leading_text(argument)) is not None:
                yield Import(node.lineno, "." if text.startswith(".") else text, at_import=at_import)
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, at_import and not inside and not typing_only)


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _leading_text(argument: ast.expr) -> str | None:
    """A literal, or what an f-string begins with; None for anything else."""
    if isinstance(argument, ast.JoinedStr) and argument.values:
        argument = argument.values[0]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value.rstrip(".")
    return None


def violations(path: str, source: str) -> list[str]:
    """Forbidden imports of the file at `path`, relative to the repository, each as "line: what"."""
    layer = path.split("/")[0]
    found = []
    for each in imports_of(source):
        top = each.module.split(".")[0]
        if each.module == ".":
            found.append(f"{each.line}: relative import")
        elif (layer in ALLOWED and not _allowed(layer, each)) or top in FORBIDDEN.get(layer, ()):
            found.append(f"{each.line}: {layer} imports {each.module}")
        elif path in STARTS_FAST and each.at_import and top in HEAVY:
            found.append(f"{each.line}: {each.module} is imported before the arguments are read")
    return found


def _allowed(layer: str, each: Import) -> bool:
    if each.module.split(".")[0] in sys.stdlib_module_names or _within(each.module, ALLOWED[layer]):
        return True
    # Only as `from stores.pyramid import ...`: the other forms bind names that open the rest of stores.
    return layer == "heads" and each.from_import and each.module.startswith("stores.pyramid.")


def _within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for layer in LAYERS for path in (ROOT / layer).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES)
def test_layering(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("stores/a.py", "import torch"),
        ("stores/a.py", "import numpy, torch.nn as nn"),
        ("stores/a.py", "from timm.models import swin_transformer_v2"),
        ("stores/a.py", "def f():\n    import lightning"),
        ("stores/a.py", "class A:\n    async def f(self):\n        from pipelines import runs"),
        ("stores/a.py", "from importlib import import_module\nimport_module('torch')"),
        (
            "stores/a.py",
            "import importlib\nx = lambda: importlib.import_module(name='heads.segmentation.linear')",
        ),
        ("stores/a.py", "__import__('extract')"),
        ("stores/a.py", "import importlib\nimportlib.import_module(f'heads.{name}')"),
        ("stores/a.py", "if TYPE_CHECKING:\n    from torch import Tensor"),
        ("stores/a.py", "try:\n    import google_crc32c\nexcept ImportError:\n    pass"),
        ("stores/codecs/a.py", "from ..errors import CodecError"),
        ("stores/a.py", "from . import errors"),
        ("stores/a.py", "import importlib\nimportlib.import_module('.torch', package='x')"),
        ("extract/a.py", "import heads"),
        ("extract/datasets/a.py", "def f():\n    from pipelines.config import ExtractConfig"),
        ("extract/a.py", "from ..heads import linear"),
        ("heads/a.py", "import stores"),
        ("heads/a.py", "import stores.pyramid"),
        ("heads/a.py", "from stores import pyramid, reader"),
        ("heads/a.py", "from stores import pyramid"),
        ("heads/a.py", "from stores import open_store"),
        ("heads/a.py", "from stores.pyramid_extra import x"),
        ("heads/a.py", "from stores.reading.reader import Store"),
        ("heads/a.py", "def f():\n    from stores.pyramid import Level\n    import zarr"),
        ("heads/a.py", "import torchvision"),
        ("heads/a.py", "import torchvision.models"),
        ("heads/a.py", "from torchvision import models"),
        ("heads/a.py", "from extract.backbones.loading import BACKBONES"),
        ("heads/a.py", "import timm"),
        ("heads/a.py", "import torchvisionx.ops"),
        ("pipelines/__main__.py", "import torch"),
        ("pipelines/config/extraction.py", "class A:\n    from zarr import Group"),
        ("pipelines/cli/arguments.py", "try:\n    import lightning.pytorch as pl\nfinally:\n    pass"),
        ("pipelines/config/extraction.py", "import_module('timm')"),
        ("pipelines/runs/run_folder.py", "from .config import TrainConfig"),
    ],
)
def test_the_checker_finds(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "stores/a.py",
            "import os.path\nfrom collections import abc\nimport numpy as np\nfrom stores.errors import E",
        ),
        (
            "stores/a.py",
            "from numcodecs.zstd import Zstd\nimport zarr.storage\nimport_module(f'stores.codecs.{name}')",
        ),
        ("stores/a.py", "'import torch'  # import torch"),
        ("extract/a.py", "import torch, timm\nfrom stores import StoreWriter"),
        ("heads/a.py", "from stores.pyramid import Level, PyramidSpec\nimport torch.nn.functional as F"),
        (
            "heads/a.py",
            "import torchvision.ops\nfrom torchvision.ops import roi_align\nfrom torchvision import ops",
        ),
        ("heads/a.py", "from scipy.optimize import linear_sum_assignment"),
        ("pipelines/__main__.py", "def main():\n    import torch\n    from extract import plan"),
        ("pipelines/config/extraction.py", "if TYPE_CHECKING:\n    import torch"),
        ("pipelines/verbs/train_head.py", "import torch, lightning, heads, extract, stores"),
    ],
)
def test_the_checker_lets_pass(path: str, source: str) -> None:
    assert violations(path, source) == []


def loaded_after(code: str, *names: str) -> set[str]:
    """Which of the modules a fresh interpreter has loaded after running the code."""
    code = f"{code}\nimport sys\nprint('loaded', *({set(names)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def importing(*paths: str) -> str:
    modules = [path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in paths]
    return "\n".join(f"import {module}" for module in modules)


def test_the_pyramid_alone_loads_no_storage() -> None:
    names = ("zarr", "numcodecs", "numpy", "torch", "stores.reading.reader")
    assert loaded_after("from stores.pyramid import Level, PyramidSpec", *names) == set()


def test_all_of_stores_loads_no_torch() -> None:
    code = importing(*(path for path in SOURCES if path.startswith("stores/")))
    assert loaded_after(code, "torch", "timm", "lightning", "extract", "heads", "pipelines") == set()


def test_all_of_heads_loads_no_storage() -> None:
    code = importing(*(path for path in SOURCES if path.startswith("heads/")))
    assert loaded_after(code, "zarr", "numcodecs", "timm", "lightning", "extract", "pipelines") == set()


def test_arguments_are_read_before_anything_heavy_loads() -> None:
    code = importing(*sorted(STARTS_FAST & set(SOURCES)))
    assert loaded_after(code, *HEAVY) == set()
