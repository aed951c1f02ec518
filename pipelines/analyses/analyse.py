"""`analyse`: similarity, attention, kernels, features as pictures and codec error, as JSON, CSV and PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError

_KINDS: Mapping[str, tuple[str, ...]] = {
    "cka": ("store", "run", "model"),
    "attention": ("model",),
    "kernels": ("model", "weights"),
    "pca": ("store", "model"),
    "neighbours": ("store", "model"),
    "codec": ("store",),
}
"""What each kind can be of."""


def run(config: AnalyseConfig) -> dict[str, Any]:
    """Writes <kind>.json, <kind>.csv and <kind>.png and prints the main numbers.

    Raises UsageError for a kind of what it cannot be of, and as the kinds do.
    """
    if config.out is not None and Path(config.out).suffix.lower() in (".json", ".csv", ".png", ".html"):
        raise UsageError(
            f"--out {config.out}: expected a folder, for {config.kind}.json, {config.kind}.csv and "
            f"{config.kind}.png"
        )
    _check_given(config)
    analysis = _kind(config)(config)
    # Late: drawing takes a second to load, and a refusal draws nothing.
    from pipelines.analyses.written import write_analysis

    usual = (
        Path(config.run) / "analyses" if config.run else Path("analyses", f"{analysis.name}-{config.kind}")
    )
    files = write_analysis(Path(config.out or usual), config.kind, analysis)
    print(f"written: {', '.join(files.values())}")
    print(analysis.sentence)
    return {**analysis.content, "files": files}


def _check_given(config: AnalyseConfig) -> None:
    possible = _KINDS[config.kind]
    given = [name for name in ("store", "run", "model") if getattr(config, name)]
    for name in given:
        if name not in possible and not (name == "run" and config.kind == "codec"):
            raise UsageError(
                f"--kind {config.kind} is of {' or '.join(f'--{each}' for each in possible)}, not of --{name}"
            )
    if not given and config.kind != "kernels":
        raise UsageError(f"--kind {config.kind}: pass {' or '.join(f'--{each}' for each in possible)}")
    if config.model and config.store:
        raise UsageError("pass --store or --model, not both: one is read, the other runs live on --dataset")


def _kind(config: AnalyseConfig) -> Callable[[AnalyseConfig], Any]:
    """The function of a kind; each is in a module of its own, and few need a backbone."""
    name: str = config.kind
    if name == "cka":
        name = "cka_of_run" if config.run else "cka_of_stores" if config.store else "cka_of_blocks"
    folder = "pipelines.analyses.similarity" if config.kind == "cka" else "pipelines.analyses"
    found: Callable[[AnalyseConfig], Any] = getattr(import_module(f"{folder}.{name}"), name)
    return found
