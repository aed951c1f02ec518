"""`export --format pt2|onnx`: a run as one file of tensors in and out, compared with `load_run` before it is
kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extract.backbones.frozen import FrozenBackbone
from extract.datasets import Record
from extract.views.crop_size import crop_hw
from extract.views.recipes import ViewRecipe
from heads.contract import Head
from heads.detection.base import DetectionHead
from pipelines.config import ExportConfig
from pipelines.errors import UsageError, WorkFailed
from pipelines.export.model_card import Export, write_beside
from pipelines.export.outputs import output_names, outputs_of
from pipelines.export.program import (
    input_names,
    largest_difference,
    trace,
    write_onnx,
    write_pt2,
)
from pipelines.export.tensor_model import TensorHead, TensorModel, made_views, whole_batches
from pipelines.live.backbone import live_features, load_run_backbone, run_test_recipe
from pipelines.runs.head_file import shared_record
from pipelines.runs.run_folder import RunRecord, read_run
from pipelines.runs.trained_head import load_head
from pipelines.units import gigabytes

LARGEST_DIFFERENCE = 1e-3
"""Of scores from 0 to 1, between the file and `load_run`; with more, the file is not kept. The tests hold a
tenth of it for heads of every task."""
_WRITERS = {"pt2": write_pt2, "onnx": write_onnx}
_CHECKED_IMAGES = 3
"""More than are traced: the number of images must be free."""


def export_run(config: ExportConfig) -> dict[str, Any]:
    """Writes backbone and head, or the head alone, to `--out`.

    Raises UsageError for a name of another ending, a head or a size that cannot be traced, or a missing
    package; WorkFailed where the file gives other scores than `load_run`.
    """
    out, ending = Path(config.out), f".{config.format}"
    if out.suffix != ending:
        raise UsageError(f"--out {out}: expected a name that ends in {ending}, such as model{ending}")
    record = read_run(Path(config.run))
    head, step = load_head(Path(config.run), torch.device("cpu"), config.checkpoint)
    outputs_of(head)  # refuses before the backbone is loaded
    backbone = load_run_backbone(record, config.weights, torch.device("cpu"))
    recipe = run_test_recipe(record)
    size = _size(config.size, recipe)
    whole = config.part != "head"
    model = (TensorModel(backbone, head, size) if whole else TensorHead(head, size)).eval()
    shapes = _Shapes(recipe.frames, size, config.batch_size)
    traced, checked = shapes.traced(head), shapes.checked(head)
    pixels, valid = made_views(traced)
    first = pixels if whole else _features(backbone, pixels, valid)
    with whole_batches(backbone):
        program = trace(model, head, (first, valid))
    facts: dict[str, Any] = {
        "inputs": list(input_names(model, record.levels)),
        "outputs": list(output_names(head)),
        "size": list(size),
        "batch": traced[0] if isinstance(head, DetectionHead) else "free",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".partial-{out.name}")
    shared = shared_record(record)
    try:
        run = _WRITERS[config.format](program, partial, _record_in_file(shared, facts))
        pixels, valid = made_views(checked)
        features, sizes = _features(backbone, pixels, valid), _sizes(valid)
        found = run(pixels if whole else features, valid)
        # What `load_run` predicts of these views, in their own pixels.
        difference = largest_difference(head, found, head.predict(features, sizes, sizes), valid)
        if not difference <= LARGEST_DIFFERENCE:
            raise WorkFailed(
                f"{out} is not written: its scores differ from the run's by {difference:.2g}, at most "
                f"{LARGEST_DIFFERENCE:g} is expected; use --format safetensors, and report this"
            )
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    bytes_ = out.stat().st_size
    what = f"{record.model} and {record.head}" if whole else record.head
    print(f"{out}: {what} of step {step}, {gigabytes(bytes_)}, views of {size[0]}x{size[1]} px, float32")
    print(f"inputs {', '.join(facts['inputs'])}; outputs {', '.join(facts['outputs'])}")
    print(f"largest difference of a score from load_run's: {difference:.1e} ({checked[0]} made images)")
    write_beside(out, Export(record=shared, step=step, format=config.format, facts=facts), Path(config.run))
    return {"out": str(out), "bytes": bytes_, "step": step, "largest_difference": difference, **facts}


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Shapes of pixels, (N, [T,] 3, H, W), that are traced and checked."""

    frames: int | None
    size: tuple[int, int]
    batch_size: int | None

    def traced(self, head: Head) -> tuple[int, ...]:
        if not isinstance(head, DetectionHead):
            if self.batch_size is not None:
                raise UsageError(
                    f"--batch-size {self.batch_size}: the number of images is free in this file; omit it"
                )
            return self._of(2)  # torch.export takes 1 for a constant
        return self._of(self.batch_size or 1)

    def checked(self, head: Head) -> tuple[int, ...]:
        return self.traced(head) if isinstance(head, DetectionHead) else self._of(_CHECKED_IMAGES)

    def _of(self, images: int) -> tuple[int, ...]:
        return (images, *(() if self.frames is None else (self.frames,)), 3, *self.size)


def _size(given: str | None, recipe: ViewRecipe) -> tuple[int, int]:
    """Height and width of the views: those given, else what the run's test view makes of a square image."""
    if given is not None:
        try:
            height, width = crop_hw(given)
        except ValueError as error:
            raise UsageError(f"--size {given}: {error}") from None
        return height, width
    square = Record("", 0, (1024, 1024), *((64, 25.0) if recipe.frames else ()))
    height, width = recipe.view("", square, 0, 0).padded_hw
    return height, width


def _features(backbone: FrozenBackbone, pixels: Tensor, valid: Tensor) -> dict[str, Tensor]:
    return live_features(backbone, pixels.movedim(-3, -1).contiguous().numpy(), _sizes(valid))


def _sizes(valid: Tensor) -> list[tuple[int, int]]:
    return [(height, width) for height, width in valid.tolist()]


def _record_in_file(record: RunRecord, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": record.task,
        "model": record.model,
        "head": record.head,
        "class_names": list(record.class_names),
        **facts,
    }
