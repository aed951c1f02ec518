"""The model card and config.json beside an exported head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.runs.run_folder import RunRecord

_MOST_CLASSES = 30


def config_of(record: RunRecord, file_name: str, step: int, digest: str) -> dict[str, Any]:
    """What config.json holds: the record's fields that people and hubs look for."""
    return {
        "library_name": "permafrost",
        "weights": file_name,
        "weights_sha256": digest,
        "step": step,
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


def model_card(
    record: RunRecord, file_name: str, step: int, scores: Mapping[str, Any], licence: str | None
) -> str:
    """A short README.md: what the head is, of which data, how good, and how to load it."""
    backbone = record.identity["backbone"]
    classes = ", ".join(record.class_names[:_MOST_CLASSES])
    more = f", ... ({record.num_classes} in all)" if record.num_classes > _MOST_CLASSES else ""
    weights = record.weights or "timm"
    measured = "".join(f"| {name} | {value} |\n" for name, value in scores.items())
    unmeasured = "Not measured: the run has no evaluate.json.\n"
    table = f"| score | value |\n|---|---|\n{measured}" if scores else unmeasured
    stores = "".join(f"- `{store.path}`, identity `{store.identity_digest}`\n" for store in record.stores)
    online = "Trained through the live backbone, without a store.\n"
    split, levels = record.identity["dataset"].get("split", "unknown"), ", ".join(record.levels)
    return f"""---
library_name: permafrost
tags: [{record.task}]
---
# {record.head} on {record.model}, {record.dataset}

A head for {record.task}, trained for {step} steps on frozen features. It reads the levels {levels}
of the backbone, which is not part of the file: `{record.model}`, weights SHA-256
`{backbone["weights_sha256"]}`.

    from pipelines import load_run
    model = load_run("{file_name}", weights="{weights}")
    scores = model([image])  # uint8 RGB (H, W, 3)

Classes: {classes}{more}

## Data
{record.dataset}, split {split}. Licence: {licence or "not recorded"}.

{stores or online}
## Scores
{table}"""
