"""Dockerfile: what it copies is there and is all that is installed, its extras and entry point exist."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[3]
TEXT = (PROJECT / "Dockerfile").read_text()
STEPS = re.sub(r"\\\n", " ", TEXT)
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def test_it_copies_what_is_installed() -> None:
    copied = [word for line in re.findall(r"^COPY (.*)$", STEPS, re.MULTILINE) for word in line.split()[:-1]]
    assert all((PROJECT / name).exists() for name in copied)
    packages = {each.rstrip("*") for each in SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"]}
    metadata = {SETTINGS["project"]["readme"], *SETTINGS["project"]["license-files"]}
    assert {*packages, *metadata, "pyproject.toml", "constraints.txt"} <= set(copied)


def test_its_extras_and_base_image_are_arguments() -> None:
    known = set(SETTINGS["project"]["optional-dependencies"])
    given = re.findall(r"EXTRAS=([\w,]+)", TEXT) + re.findall(
        r"EXTRAS=([\w,]+)", (PROJECT / "docs" / "cluster.md").read_text()
    )
    assert len(given) >= 3 and all(set(extras.split(",")) <= known for extras in given)
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", TEXT, re.MULTILINE)
    assert "--constraint constraints.txt" in STEPS
    assert 'ENTRYPOINT ["python", "-m", "pipelines"]' in TEXT
