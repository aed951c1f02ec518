"""The model card and config.json beside an exported file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import UsageError
from pipelines.json_output import write_json
from pipelines.runs.run_folder import RunRecord
from stores.small_files import read_json

CONFIG, CARD, SCORES = "config.json", "README.md", "evaluate.json"
_MOST_CLASSES = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """An exported file and what it was made from."""

    record: RunRecord
    """Without places of the machine; see pipelines/runs/head_file.py."""
    step: int
    format: str
    """safetensors | pt2 | onnx."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More entries of config.json: of pt2 and onnx the inputs, outputs and size of views, of safetensors the
    digest of the weights."""


def refuse_others(out: Path) -> None:
    """Raises UsageError where config.json or README.md beside `out` are not of an earlier export of it."""
    config, card = out.parent / CONFIG, out.parent / CARD
    try:
        is_ours = not config.exists() or read_json(config).get("weights") == out.name
    except (ValueError, OSError, AttributeError):
        is_ours = False
    if not is_ours or (card.exists() and not config.exists()):
        raise UsageError(
            f"{out.parent} holds {CONFIG} or {CARD} of something else; pass an --out in a folder of its own"
        )


def write_beside(out: Path, export: Export, run: Path) -> None:
    """Writes config.json and README.md beside `out`, with the scores of the run's evaluation."""
    write_json(out.parent / CONFIG, _config_of(out.name, export))
    licence = _licence(export.record.identity["dataset"])
    (out.parent / CARD).write_text(model_card(out.name, export, _scores(run), licence), encoding="utf-8")


def _config_of(file_name: str, export: Export) -> dict[str, Any]:
    """What config.json holds: the record's fields that people and hubs look for."""
    record = export.record
    return {
        "library_name": "permafrost",
        "weights": file_name,
        "format": export.format,
        **export.facts,
        "step": export.step,
        "task": record.task,
        "dataset": record.dataset,
        "head": record.head,
        "head_settings": record.full_settings,
        "levels": record.pyramid,
        "num_classes": record.num_classes,
        "class_names": list(record.class_names),
        "backbone": record.identity["backbone"],
        "stores": [store.identity_digest for store in record.stores],
        "versions": record.versions,
    }


def model_card(file_name: str, export: Export, scores: Mapping[str, Any], licence: str | None) -> str:
    """A short README.md: what the file is, of which data, how good, and how to load it."""
    record = export.record
    classes = ", ".join(record.class_names[:_MOST_CLASSES])
    more = f", ... ({record.num_classes} in all)" if record.num_classes > _MOST_CLASSES else ""
    measured = "".join(f"| {name} | {value} |\n" for name, value in scores.items())
    unmeasured = "Not measured: the run has no evaluate.json.\n"
    table = f"| score | value |\n|---|---|\n{measured}" if scores else unmeasured
    stores = "".join(f"- `{store.path}`, identity `{store.identity_digest}`\n" for store in record.stores)
    split = record.identity["dataset"].get("split", "unknown")
    online = "Trained through the live backbone, without a store.\n"
    return f"""---
library_name: permafrost
tags: [{record.task}]
---
# {record.head} on {record.model}, {record.dataset}

{_contents(export)}

{_usage(file_name, export)}

Classes: {classes}{more}

## Data
{record.dataset}, split {split}. Licence: {licence or "not recorded"}.

{stores or online}
## Scores
{table}"""


def _contents(export: Export) -> str:
    record = export.record
    levels, digest = ", ".join(record.levels), record.identity["backbone"]["weights_sha256"]
    head = f"A head for {record.task}, trained for {export.step} steps on frozen features."
    if "images" in export.facts.get("inputs", ()):
        return (
            f"{head} The file holds the backbone too: `{record.model}`, weights SHA-256\n`{digest}`,\nas one "
            "float32 program."
        )
    return (
        f"{head} It reads the levels {levels}\nof the backbone, which is not part of the file: "
        f"`{record.model}`, weights SHA-256\n`{digest}`."
    )


def _usage(file_name: str, export: Export) -> str:
    if export.format == "safetensors":
        weights = export.record.weights or "timm"
        return f"""    from pipelines import load_run
    model = load_run("{file_name}", weights="{weights}")
    scores = model([image])  # uint8 RGB (H, W, 3)"""
    facts = export.facts
    inputs, outputs = (", ".join(f"`{name}`" for name in facts[each]) for each in ("inputs", "outputs"))
    height, width = facts["size"]
    batch = "any number N" if facts["batch"] == "free" else f"N = {facts['batch']}"
    takes = (
        f"uint8 RGB (N, [T,] 3, {height}, {width})"
        if "images" in facts["inputs"]
        else f"float32 (N, C, [T,] y, x), of views of {height}x{width} px"
    )
    return f"""Inputs {inputs}: {takes}, and the part of each that is image, int64 (N, 2), height and width;
{batch} of views, padded at the bottom and the right. Outputs {outputs}: see pipelines/export/outputs.py.

{_CALLS[export.format].format(file=file_name)}"""


_CALLS = {
    "pt2": """    import torch
    model = torch.export.load("{file}").module()
    outputs = model(first_input, valid_hw)""",
    "onnx": """    import onnxruntime
    session = onnxruntime.InferenceSession("{file}")
    outputs = session.run(None, inputs_by_name)""",
}


def _scores(folder: Path) -> dict[str, Any]:
    """The numbers of the run's evaluation on its test split; empty where there is none."""
    try:
        found = json.loads((folder / SCORES).read_text())
    except (OSError, ValueError):
        return {}
    flat = found if isinstance(found, dict) else {}
    return {name: round(value, 4) for name, value in flat.items() if type(value) is float}


def _licence(dataset: Mapping[str, Any]) -> str | None:
    """Of the data set, where its module records one."""
    # Late: data sets load an image decoder, which reading a checkpoint does not need.
    from extract.datasets import dataset_module

    try:
        module = dataset_module(dict(dataset))
    except ValueError:  # a data set of a package that is absent
        return None
    found = (getattr(value, "licence", None) for value in vars(module).values() if isinstance(value, type))
    return next((licence for licence in found if isinstance(licence, str)), None)
