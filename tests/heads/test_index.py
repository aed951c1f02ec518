"""The index of heads: the names that importing gives, without importing."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import heads
from heads import HeadError, HeadPreset
from heads.index import _own_heads, head_index, heads_of_source

PRESET = 'HEADS = {"sorted": HeadPreset(task="sorting")}'


def test_the_index_is_what_importing_every_module_finds() -> None:
    found = {}
    for module in walk_packages(heads.__path__, "heads."):
        presets: dict[str, HeadPreset] = getattr(import_module(module.name), "HEADS", {})
        found |= {(preset.task, name): module.name for name, preset in presets.items()}
    assert len(found) > 30
    assert {key: head.module for key, head in head_index().items() if head.package is None} == found


def test_one_head_loads_one_module_and_names_load_no_torch() -> None:
    code = (
        "import sys, heads\n"
        "assert 'bifpn5' in heads.head_names('detection') and 'torch' not in sys.modules\n"
        "heads.head_settings('linear', 'segmentation')\n"
        "print(*(name for name in sys.modules if 'HEADS' in vars(sys.modules[name])))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split() == ["heads.segmentation.linear"]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (PRESET, ["sorted"]),
        (
            'S = ("a", "b")\nHEADS: D = {f"{s}{n}": p(n) for s in S for n in range(1, 3)}',
            ["a1", "a2", "b1", "b2"],
        ),
        ('HEADS = {"x": p(), **{n: p(k) for n, k in (("y", 1), ("z", 2))}}', ["x", "y", "z"]),
    ],
)
def test_names_are_read_from_the_text(source: str, names: list[str]) -> None:
    source += '\ndef p(n=0): return HeadPreset(task="sorting", settings=n)'
    assert heads_of_source(source, "a.py") == [("sorting", name) for name in names]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("HEADS = {}", r"a\.py: expected HEADS = .* presets of one literal task, found \[\]"),
        ('HEADS = made(HeadPreset(task="sorting"))', r"a\.py: expected HEADS"),
        ('HEADS = {name(): HeadPreset(task="sorting")}', r"a\.py: the names of HEADS are not literals"),
        ('HEADS = {**{f"{n}": HeadPreset(task="t") for n in open("x")}}', "not literals .*'open'"),
        ('HEADS = {**OTHERS, "x": HeadPreset(task="t")}', "line 1 is neither a dict nor a comprehension"),
    ],
)
def test_what_cannot_be_read_is_refused(source: str, problem: str) -> None:
    with pytest.raises(HeadError, match=problem):
        heads_of_source(source, "a.py")


def test_a_name_twice_for_one_task_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(f"\n{PRESET}")
    own = list(_own_heads(tmp_path))
    monkeypatch.setattr("heads.index._own_heads", lambda folder: own)
    with pytest.raises(HeadError, match=r"task sorting are named sorted: .*first \(.* and .*second \("):
        head_index.__wrapped__()
