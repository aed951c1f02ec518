"""A trained head as one safetensors file: its weights, and in the header all that builds it again.

The header holds the run's record (head and settings, levels, classes, identity of the store) without paths of
the machine, the step, and the SHA-256 of the weights. `load_run` reads such a file as it reads a run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from heads.contract import Head
from pipelines.errors import UsageError, WorkFailed
from pipelines.runs.checkpoint_files import DamagedCheckpoint
from pipelines.runs.load_checkpoint import not_finite
from pipelines.runs.record_bounds import check_record
from pipelines.runs.run_folder import RunRecord, read_run
from pipelines.runs.trained_head import new_head, set_weights

ENDING = ".safetensors"
_KIND, _VERSION = "permafrost-head", "1"
_MOST_HEADER = 16 << 20  # 16 MiB of record: ImageNet-21k's class names take half a megabyte


@dataclass(frozen=True, slots=True, eq=False)
class HeadFile:
    """A head file that was read."""

    record: RunRecord
    step: int
    head: Head
    """In evaluation mode."""


def is_head_file(path: Path) -> bool:
    """Whether this is the path of a head file, not of a run's folder."""
    return path.name.endswith(ENDING) and not path.is_dir()


def shared_record(record: RunRecord) -> RunRecord:
    """The record without what names places of this machine: stores are known by their digests, weights by
    theirs."""
    is_name = record.weights is None or record.weights == "timm" or record.weights.startswith("random:")
    stores = tuple(dataclasses.replace(s, path=Path(s.path).name) for s in record.stores)
    return dataclasses.replace(
        record,
        stores=stores,
        stores_folder="features",
        weights=record.weights if is_name else None,
        data=None,
    )


def write_head_file(path: Path, record: RunRecord, head: Head, step: int) -> str:
    """Writes a head file, whole or not at all; returns the SHA-256 of its weights.

    Raises WorkFailed where the weights are not finite, OSError where the file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    if name := not_finite(tensors):
        raise WorkFailed(f"weights {name} are not finite: export a checkpoint from before the divergence")
    digest = tensors_sha256(tensors)
    header = {
        "format": _KIND,
        "version": _VERSION,
        "step": str(step),
        "weights_sha256": digest,
        "record": json.dumps(shared_record(record).to_json()),
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(save(tensors, header))
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest


def read_head_file(path: Path, device: torch.device | str = "cpu") -> HeadFile:
    """The head in a file.

    Raises UsageError where it is no head file, or of a later version; DamagedCheckpoint where its weights are
    not those that were written, not finite, or not those of its head.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist, or is no file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            record, step, expected = _header(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no mapping
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is damaged, or no safetensors file: {error}") from error
    if (found := tensors_sha256(tensors)) != expected:
        raise DamagedCheckpoint(
            f"{path} is damaged: the SHA-256 of its weights is {found[:16]}..., expected {expected[:16]}..."
        )
    if name := not_finite(tensors):
        raise DamagedCheckpoint(f"{path}: weights {name} are not finite")
    head = new_head(record)
    set_weights(head, tensors, path)
    return HeadFile(record, step, head.to(device).eval().requires_grad_(False))


def record_of(run: Path) -> RunRecord:
    """The record of a run's folder or of a head file; reads no weights. Raises UsageError as both do."""
    if not is_head_file(run):
        return read_run(run)
    if not run.is_file():
        raise UsageError(f"{run} does not exist, or is no file")
    try:
        with safe_open(run, framework="pt", device="cpu") as file:
            return _header(run, file.metadata() or {})[0]
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{run} is damaged, or no safetensors file: {error}") from error


def _header(path: Path, fields: Mapping[str, str]) -> tuple[RunRecord, int, str]:
    if fields.get("format") != _KIND:
        raise UsageError(
            f"{path} is no head of this program: its header has format {str(fields.get('format'))[:40]!r}, "
            f"expected {_KIND!r}; `export --run R --format safetensors --out FILE` writes one"
        )
    if fields.get("version") != _VERSION:
        raise UsageError(
            f"{path} is of version {str(fields.get('version'))[:20]}, this program reads version {_VERSION}"
        )
    try:
        text = fields["record"]
        if len(text) > _MOST_HEADER:
            raise ValueError(f"a record of {len(text)} bytes, expected at most {_MOST_HEADER}")
        record = RunRecord.from_json(json.loads(text))
        check_record(record)
        return record, int(fields["step"]), fields["weights_sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path}: its header is not the record of a run: {type(error).__name__}: {str(error)[:300]}"
        ) from error


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """64 hex digits over name, type, shape and bytes of each tensor in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
