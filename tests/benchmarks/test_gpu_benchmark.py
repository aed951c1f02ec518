"""The GPU benchmark without a GPU: every part on tiny input, limits, failures, and a bare machine."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import wheels
from benchmarks.gpu.parts import PARTS, Command, Part
from benchmarks.gpu.results import Results
from benchmarks.gpu.run_part import run_part

ROOT = Path(__file__).parents[2]
BLOCKER = """
import sys
from importlib.machinery import PathFinder
LACKING = {"av", "matplotlib", "sklearn", "tensorstore", "effdet", "xarray"}
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKING else super().find_spec(name, path, target)
    @classmethod
    def find_distributions(cls, context):
        return () if context.name in LACKING else super().find_distributions(context)
sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
"""Hides what neither torch's usual companions nor the wheels bring, and what no part needs."""


def run(part: Part, tmp_path: Path, code: str, limit_s: float = 600) -> tuple[Results, dict[str, Any]]:
    """A part whose one module is `code`."""
    (tmp_path / "measured.py").write_text(code)
    made = Part(name=part.name, claim="", limit_s=limit_s, commands=part.commands)
    results = Results(tmp_path / "out", [made], tiny=True, device="cpu")
    options = argparse.Namespace(tiny=True, device="cpu", limit_factor=1.0)
    run_part(made, results, {**os.environ, "PYTHONPATH": str(tmp_path)}, options)
    return results, json.loads((tmp_path / "out" / "result.json").read_text())["parts"][part.name]


ONE = Part(
    name="one",
    claim="",
    limit_s=1,
    commands=(Command(module="measured", words="", tiny="--tiny", label="a"),),
)


@pytest.mark.ci
def test_a_part_over_its_limit_is_cut_and_keeps_what_it_has(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time\n"
        'print(\'{"x": {"ms": 1.5}}\', flush=True)\n'
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(3600)\n"
    )
    results, found = run(ONE, tmp_path, code, limit_s=5)
    assert found["state"] == "incomplete" and found["problems"] == ["a: cut at the part's limit"]
    if (tmp_path / "pid").exists():  # it had begun by then
        assert found["figures"] == {"a, x, ms": 1.5}
        assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
    assert results.problems
    assert "cut at the part's limit" in (tmp_path / "out" / "result.md").read_text()


def test_a_failed_part_says_why_and_a_silent_one_is_no_success(tmp_path: Path) -> None:
    code = "import sys\nprint('{\"x\": 2}', flush=True)\nsys.exit('no such thing')"
    _, found = run(ONE, tmp_path, code)
    assert found["problems"] == ["a: exit code 1: no such thing"]
    assert found["figures"] == {"a, x": 2}
    _, found = run(ONE, tmp_path, "print('nothing measured')")
    assert found["problems"] == ["no figure was printed"]


def test_every_part_has_the_limit_that_was_asked_for() -> None:
    assert {part.name: part.limit_s for part in PARTS} == {
        "fed": 100,
        "extraction": 70,
        "backbones": 110,
        "heads": 60,
        "caching": 60,
        "many heads": 30,
        "giant": 50,
    }


def test_a_machine_without_the_packages_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wheels.PACKAGES, "missing-package", "no_such_module")
    with pytest.raises(SystemExit, match="lacks missing-package: run `make gpu-wheels`"):
        wheels.prepared_environment(tmp_path, {})
    monkeypatch.setattr(wheels, "NEEDED", ("torch", "no_such_module"))
    with pytest.raises(SystemExit, match="lacks no_such_module, which no wheel here brings"):
        wheels.prepared_environment(tmp_path, {})


def test_a_missing_package_is_installed_from_its_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "made_up-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up.py", "VALUE = 3\n")
        wheel.writestr(
            "made_up-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"
        )
        wheel.writestr(
            "made_up-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("made_up-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(wheels, "PACKAGES", {"made-up": "made_up"})
    monkeypatch.setattr(wheels, "INSTALLED", tmp_path / "installed")
    environment = wheels.prepared_environment(tmp_path, dict(os.environ))
    done = subprocess.run(
        [sys.executable, "-c", "import made_up; print(made_up.VALUE)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3\n"


@pytest.mark.ci
@pytest.mark.parametrize("part", [part.name for part in PARTS])
def test_every_part_runs_on_a_bare_machine(part: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    line = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu", "--limit-factor", "1000"]
    done = subprocess.run(
        [*line, "--parts", part, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "out" / "result.json").read_text())["parts"][part]
    assert done.returncode == 0, (found.get("problems"), done.stderr)
    assert found["state"] == "complete" and len(found["figures"]) >= 5
    assert f"**{part}**" in done.stdout
