"""`export`: writes the trained head of a run as a file of its own, with config.json and a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.config import ExportConfig
from pipelines.errors import UsageError
from pipelines.export.model_card import CARD, CONFIG, Export, refuse_others, write_beside
from pipelines.runs.head_file import ENDING, read_head_file, shared_record, write_head_file
from pipelines.runs.run_folder import read_run
from pipelines.runs.trained_head import load_head
from pipelines.units import gigabytes

WEBDATASET = "webdataset"


def run(config: ExportConfig) -> dict[str, Any]:
    """Writes `--out` and, beside it, config.json and README.md.

    Raises UsageError for no run, a name of another ending, settings that the format does not take, or files
    that are there and not ours to replace; DamagedCheckpoint for a checkpoint that is not as it was written.
    """
    if config.format == WEBDATASET:
        return FORMATS[config.format](config)
    refuse_others(Path(config.out))
    if not config.run:
        raise UsageError(f"--format {config.format}: pass --run with the run whose head is written")
    return FORMATS[config.format](config)


def _safetensors(config: ExportConfig) -> dict[str, Any]:
    folder, out = Path(config.run), Path(config.out)
    if out.suffix != ENDING:
        raise UsageError(f"--out {out}: expected a name that ends in {ENDING}, such as head{ENDING}")
    for flag, given in (
        ("part", config.part == "run"),
        ("size", config.size),
        ("batch-size", config.batch_size),
        ("weights", config.weights),
    ):
        if given:
            raise UsageError(
                f"--{flag}: a file of --format safetensors holds the head's weights alone; omit it"
            )
    record = read_run(folder)
    head, step = load_head(folder, torch.device("cpu"), config.checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = write_head_file(out, record, head, step)
    again = read_head_file(out)  # what was written is what was trained
    state = head.state_dict()
    assert all(torch.equal(value, state[name].cpu()) for name, value in again.head.state_dict().items())
    facts = {"weights_sha256": digest}
    write_beside(
        out, Export(record=shared_record(record), step=step, format=config.format, facts=facts), folder
    )
    size = out.stat().st_size
    print(f"{out}: {record.head} of step {step}, {gigabytes(size)}; {CONFIG} and {CARD} beside it")
    print(f"to use it: python -m pipelines predict --run {out} --input photo.jpg")
    return {"out": str(out), "bytes": size, "step": step, **facts}


def _program(config: ExportConfig) -> dict[str, Any]:
    # Late: torch's exporter, which the other formats do not need.
    from pipelines.export.exported_run import export_run

    return export_run(config)


def _webdataset(config: ExportConfig) -> dict[str, Any]:
    # Late: its package, which the other formats do not need.
    from pipelines.export.webdataset_shards import export_webdataset

    return export_webdataset(config)


FORMATS: Mapping[str, Callable[[ExportConfig], dict[str, Any]]] = {
    "safetensors": _safetensors,
    "pt2": _program,
    "onnx": _program,
    WEBDATASET: _webdataset,
}
"""By the values of --format."""
