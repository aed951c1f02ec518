"""Files of an analysis: <kind>.json, <kind>.csv and <kind>.png in one folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.json_output import write_json
from stores.reading.reader import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from extract.backbones.loading import FrozenBackbone

DPI = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """What an analysis found."""

    name: str
    """What was analysed, for the default folder."""
    content: Mapping[str, Any]
    """Of the JSON file: numbers, and identity of what they are of."""
    table: Sequence[Mapping[str, Any]]
    """Rows of the CSV file."""
    figure: Figure
    sentence: str
    """The main numbers, printed last."""


def write_analysis(folder: Path, kind: str, analysis: Analysis) -> dict[str, str]:
    """Writes the files and returns their paths by ending."""
    # Late: matplotlib takes a second to load, and help and errors of settings need none.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    folder.mkdir(parents=True, exist_ok=True)
    paths = {ending: folder / f"{kind}.{ending}" for ending in ("json", "csv", "png")}
    write_json(paths["json"], analysis.content)
    names = list(dict.fromkeys(name for row in analysis.table for name in row))
    with paths["csv"].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(analysis.table)
    FigureCanvasAgg(analysis.figure)
    analysis.figure.savefig(paths["png"], dpi=DPI)
    return {ending: str(path) for ending, path in paths.items()}


def store_identity(store: Store) -> dict[str, Any]:
    """Of a store, for the JSON file."""
    identity = store.identity
    return {
        "store": str(store.path),
        "identity_digest": store.plan.identity_digest,
        "manifest_digest": store.manifest_digest,
        "dataset": identity["dataset"]["name"],
        "split": identity["dataset"]["split"],
        "views": identity["views"]["recipe"],
        "model": identity["backbone"]["model"],
        "weights_sha256": identity["backbone"]["weights_sha256"],
        "precision": identity["backbone"].get("precision"),
        "codec": identity["codec"]["name"],
    }


def backbone_identity(backbone: FrozenBackbone, weights: str) -> dict[str, Any]:
    """Of a live backbone, for the JSON file."""
    return {"weights": weights, "folded": not hasattr(backbone.network, "trunk"), **backbone.identity()}
