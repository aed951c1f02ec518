"""`make setup` installs when what it installs from has changed, and not when a file's date has."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_PROJECT = Path(__file__).parents[1]
_SETTINGS = ("Makefile", "pyproject.toml", "constraints.txt")

_PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$1 $2" in
"-m pip") exit ${PIP_EXIT:-0} ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""
"""A stand-in for Python that notes its arguments; `-m venv` puts it into the environment as well."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in _SETTINGS:
        shutil.copy(_PROJECT / name, tmp_path)
    (tmp_path / "python").write_text(_PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def pip_calls(checkout: Path, **environment: str) -> int:
    """How often pip has run in all, after one more `make setup`."""
    calls = checkout / "calls"
    subprocess.run(
        ["make", "setup", f"PYTHON={checkout / 'python'}"],
        cwd=checkout,
        env={**os.environ, "CALLS": str(calls), "MAKEFLAGS": "", **environment},
        capture_output=True,
        check=not environment,
    )
    return sum("pip install" in line for line in calls.read_text().splitlines())


def test_installs_once_for_one_content(checkout: Path) -> None:
    assert pip_calls(checkout) == 1
    assert pip_calls(checkout) == 1
    for name in _SETTINGS:  # as a checkout leaves them
        os.utime(checkout / name, (2e9, 2e9))
    assert pip_calls(checkout) == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_installs_again_for_another_content(checkout: Path, name: str) -> None:
    pip_calls(checkout)
    with (checkout / name).open("a") as file:
        file.write("# one more line\n")
    os.utime(checkout / name, (0, 0))  # older than the environment
    assert pip_calls(checkout) == 2


def test_an_installation_that_failed_is_repeated(checkout: Path) -> None:
    pip_calls(checkout)
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# one more line\n")
    assert pip_calls(checkout, PIP_EXIT="1") == 2
    shutil.copy(_PROJECT / "constraints.txt", checkout)  # back at what was installed before the failure
    assert pip_calls(checkout) == 3
