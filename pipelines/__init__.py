"""Programs: the verbs, configuration and Lightning; the only place where stores, extract and heads meet."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HOMES = {
    "TrainConfig": "pipelines.config",
    "build_module": "pipelines.training.build_module",
    "load_run": "pipelines.live.run_model",
    "open_data": "pipelines.training.open_data",
}
__all__ = sorted(_HOMES)

_PROJECT = Path(__file__).resolve().parents[1]


def _refuse_foreign_packages() -> None:
    """Raises ImportError if another package shadows one of ours: the flat names are common ones."""
    for name in ("stores", "extract", "heads"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found != _PROJECT / name / "__init__.py":
            raise ImportError(
                f"package {name!r} resolves to {found or 'nothing'}, not to {_PROJECT / name}: it belongs to "
                "another project, or this one is not installed. Remove the other package from PYTHONPATH and "
                "the current folder, or run `make setup` and use .venv/bin/python"
            )


_refuse_foreign_packages()


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # late, because most load torch
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}; available: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
