"""Exported program of a run: traced by torch.export, written as .pt2 or .onnx, read back and compared.

A file that gives other numbers than `load_run` is not kept.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heads.detection.base import DetectionHead
from pipelines.errors import UsageError
from pipelines.export.outputs import Outputs
from pipelines.export.tensor_model import TensorModel

MOST_IMAGES = 1024
RECORD = "permafrost.json"
"""Name of the record inside a .pt2 file, and of its entry in the metadata of an .onnx file."""
_OPSET = 20
_EXTRA = (
    "--format onnx needs the packages onnx, onnxscript and onnxruntime: install the extra, pip install "
    "'permafrost[export]'"
)
Run = Callable[[Any, Tensor], Outputs]
"""The inputs of a model -> its outputs."""


def trace(model: nn.Module, head: nn.Module, inputs: tuple[Any, Tensor]) -> torch.export.ExportedProgram:
    """The program of a model in float32 on the CPU. The number of images is free, 1 to 1024; of detection
    heads, whose post-processing goes image by image, it is that of `inputs`.

    Raises UsageError, with torch's reason, where it cannot be traced.
    """
    count = torch.export.Dim("images_in_batch", min=1, max=MOST_IMAGES)
    first, _ = inputs
    free: Any = {0: count}
    shapes: Any = (free if isinstance(first, Tensor) else dict.fromkeys(first, free), free)
    with torch.no_grad():
        model(*inputs)  # makes what the backbone keeps by size of image, before anything is traced
        try:
            return torch.export.export(
                model,
                inputs,
                dynamic_shapes=None if isinstance(head, DetectionHead) else shapes,
                strict=False,
            )
        except Exception as error:  # whatever torch raises: it has no class in common
            raise UsageError(
                f"--format: torch.export cannot follow {type(head).__name__} on this backbone "
                f"({_first_line(error)}); use --format safetensors"
            ) from error


def write_pt2(program: torch.export.ExportedProgram, path: Path, record: Mapping[str, Any]) -> Run:
    """Writes a .pt2 file and returns what reads it back: `torch.export.load(path).module()`.

    Args:
        record: kept inside the file; its `inputs` and `outputs` are the names of both, in order.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that share memory: all are copied
        torch.export.save(program, path, extra_files={RECORD: json.dumps(record)})
    run: Run = torch.export.load(path).module()
    return run


def write_onnx(program: torch.export.ExportedProgram, path: Path, record: Mapping[str, Any]) -> Run:
    """Writes an .onnx file, weights inside, and returns what runs it in ONNX Runtime on the CPU.

    Args:
        record: as of `write_pt2`.

    Raises UsageError where the extra is missing, or where ONNX has no form for an operator, which it names.
    """
    try:
        # Late: an extra.
        import onnxruntime
        import onnxscript  # noqa: F401 torch imports it
    except ImportError as error:
        raise UsageError(f"{_EXTRA} ({error})") from error
    inputs, outputs = list(record["inputs"]), list(record["outputs"])
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converter's own, about what it looks up
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:
        raise UsageError(
            f"--format onnx: ONNX has no form for {_operator(error)}; use --format pt2"
        ) from error
    assert made is not None
    made.model.metadata_props[RECORD] = json.dumps(record)
    made.save(path, external_data=False)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UsageError(f"--format onnx: ONNX Runtime refuses the file ({_first_line(error)})") from error
    read = {each.name for each in session.get_inputs()}

    def run(first: Any, valid: Tensor) -> Outputs:
        given = list(first.values()) if isinstance(first, Mapping) else [first]
        by_name = dict(zip(inputs, [*given, valid], strict=True))
        arrays = {name: value.numpy() for name, value in by_name.items() if name in read}
        found = session.run(outputs, arrays)
        return {name: torch.from_numpy(value) for name, value in zip(outputs, found, strict=True)}

    return run


def largest_difference(head: nn.Module, found: Outputs, expected: Sequence[Any], valid: Tensor) -> float:
    """Largest difference of a score, from 0 to 1, of what a file gives and what `predict` gives image by
    image; of detections the scores, best first, and where fewer are found the score of the missed one."""
    worst = 0.0
    for row, theirs in enumerate(expected):
        ours = found["scores"][row]
        if isinstance(head, DetectionHead):
            theirs = theirs["scores"]
            padded = torch.zeros_like(ours)
            padded[: len(theirs)] = theirs
            theirs = padded
        elif ours.ndim == 3:
            height, width = valid[row].tolist()
            ours = ours[:, :height, :width]
        worst = max(worst, float((ours - theirs).detach().abs().max()))
    return worst


def input_names(model: nn.Module, levels: Sequence[str]) -> tuple[str, ...]:
    """Names of the inputs in order."""
    return (*(("images",) if isinstance(model, TensorModel) else levels), "valid_hw")


def _operator(error: BaseException) -> str:
    """The operator that a failed conversion names, else the first line of the error."""
    seen: BaseException | None = error
    while seen is not None:
        for pattern in (r"OpOverload\(op='([^']+)'", r"No ONNX function found for ([\w.:]+)"):
            if found := re.search(pattern, str(seen)):
                return found[1]
        seen = seen.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
