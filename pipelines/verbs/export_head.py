"""`export`: writes the trained head of a run as a file of its own, with config.json and a model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.config import ExportConfig
from pipelines.errors import UsageError
from pipelines.export.model_card import config_of, model_card
from pipelines.json_output import write_json
from pipelines.runs.head_file import ENDING, read_head_file, shared_record, write_head_file
from pipelines.runs.run_folder import read_run
from pipelines.runs.trained_head import load_head
from pipelines.units import gigabytes
from stores.small_files import read_json

CONFIG, CARD, SCORES = "config.json", "README.md", "evaluate.json"


def run(config: ExportConfig) -> dict[str, Any]:
    """Writes `--out` and, beside it, config.json and README.md.

    Raises UsageError for no run, a name of another ending, or files that are there and not ours to replace;
    DamagedCheckpoint for a checkpoint that is not as it was written.
    """
    return FORMATS[config.format](config)


def _safetensors(config: ExportConfig) -> dict[str, Any]:
    folder, out = Path(config.run), Path(config.out)
    if out.suffix != ENDING:
        raise UsageError(f"--out {out}: expected a name that ends in {ENDING}, such as head{ENDING}")
    record = read_run(folder)
    head, step = load_head(folder, torch.device("cpu"), config.checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    _refuse_others(out.parent, out.name)
    digest = write_head_file(out, record, head, step)
    again = read_head_file(out)  # what was written is what was trained
    state = head.state_dict()
    assert all(torch.equal(value, state[name].cpu()) for name, value in again.head.state_dict().items())
    shared = shared_record(record)
    write_json(out.parent / CONFIG, config_of(shared, out.name, step, digest))
    card = model_card(shared, out.name, step, _scores(folder), _licence(record.identity["dataset"]))
    (out.parent / CARD).write_text(card, encoding="utf-8")
    size = out.stat().st_size
    print(f"{out}: {record.head} of step {step}, {gigabytes(size)}; {CONFIG} and {CARD} beside it")
    print(f"to use it: python -m pipelines predict --run {out} --input photo.jpg")
    return {"out": str(out), "bytes": size, "step": step, "weights_sha256": digest}


FORMATS: Mapping[str, Callable[[ExportConfig], dict[str, Any]]] = {"safetensors": _safetensors}
"""By the values of --format."""


def _refuse_others(folder: Path, name: str) -> None:
    """Raises UsageError where config.json or README.md are not of an earlier export of this file."""
    config, card = folder / CONFIG, folder / CARD
    try:
        is_ours = not config.exists() or read_json(config).get("weights") == name
    except (ValueError, OSError, AttributeError):
        is_ours = False
    if not is_ours or (card.exists() and not config.exists()):
        raise UsageError(
            f"{folder} holds {CONFIG} or {CARD} of something else; pass an --out in a folder of its own"
        )


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
