"""Ready-made descriptions of public data sets: YAML files of `ready_made`, found by their names."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("ready_made")


def ready_made_names() -> tuple[str, ...]:
    """Data sets that a description of this package explains, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def ready_made_file(name: str) -> Path | None:
    """The description of a public data set; None where this package has none."""
    path = FOLDER / f"{name}.yaml"
    return path if "/" not in name and path.is_file() else None
