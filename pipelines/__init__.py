"""Programs: the verbs, configuration and Lightning; the only place where stores, extract and heads meet."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["load_run"]

_PROJECT = Path(__file__).resolve().parents[1]


def _refuse_foreign_packages() -> None:
    """Raises ImportError if another package stands before one of ours: the flat names are common ones."""
    for name in ("stores", "extract", "heads"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found != _PROJECT / name / "__init__.py":
            raise ImportError(
                f"package {name!r} resolves to {found or 'nothing'}, not to {_PROJECT / name}: it is another "
                "project's, or this one is not installed. Take the other off PYTHONPATH and out of the "
                "current folder, or run `make setup` and use .venv/bin/python"
            )


_refuse_foreign_packages()


def __getattr__(name: str) -> Any:
    if name == "load_run":  # late, because it loads torch
        return import_module("pipelines.live.run_model").load_run
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}; it has {', '.join(__all__)}")
