"""Checkpoint files of every origin as tensors named like timm's.

Handled: timm's own safetensors, the official Microsoft .pth (dict `model`), SimMIM (`encoder.` prefix),
EsViT (`teacher` or `student`, `module.` prefix; Swin V1), safetensors in one file or in shards. No code of a
file is ever run: pickles load with `weights_only`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import OrderedDict
from collections.abc import Container, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_CONTAINERS = ("model", "state_dict", "teacher", "student")
"""Keys a training script may have put its weights under; EsViT evaluates the teacher."""
_PREFIXES = ("module.", "backbone.", "encoder.")
"""Wrappers of data-parallel training, of EsViT and of SimMIM."""
_NOT_OF_A_TRUNK = re.compile(
    r"relative_position_index|relative_coords_table|attn_mask|^mask_token$|^decoder\.|^head(_dense)?\."
)
"""Buffers that follow from the windows, SimMIM's own parts, and the classifiers of Swin files."""
_OFFICIAL_MERGE = "layers.0.downsample.reduction.weight"
"""Official files merge patches at the end of a stage, timm at the start of the next one."""


_DAMAGED = (
    SafetensorError,
    EOFError,
    RuntimeError,
    json.JSONDecodeError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What the readers of the formats raise for bytes that are not theirs."""


def read_checkpoint(path: Path | str, trunk: nn.Module) -> dict[str, Tensor]:
    """The tensors of a checkpoint, named as in `trunk`, on the CPU, in the file's own dtypes.

    Args:
        path: a .safetensors, a .pth (or .pt, .bin), an index (`*.safetensors.index.json`) or a folder.
        trunk: the timm model they are for, without classifier; a name it holds is never dropped.

    Raises:
        ValueError: the file is none of these, is damaged, or holds more than tensors.
    """
    path = Path(path)
    try:
        content = _read(path)
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a whole checkpoint: {error}") from error
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and was not loaded: {_reason(error)}. If you trust it, save its "
            f"weights alone as .safetensors"
        ) from error
    return rename(_weights_in(content, path), trunk)


def _reason(error: UnpicklingError) -> str:
    """torch's one telling line: the rest advises to load without checks."""
    return str(error).split("WeightsUnpickler error:")[-1].split("Please ")[0].split("Check the ")[0].strip()


def rename(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Tensors under timm's names: prefixes stripped, merges moved, buffers and classifiers dropped."""
    known = trunk.state_dict().keys()
    unwrapped = {_unwrapped(name, known): tensor for name, tensor in tensors.items()}
    if len(unwrapped) < len(tensors):
        raise ValueError(
            "two names of the checkpoint are the same tensor of the model once prefixes are dropped"
        )
    tensors = unwrapped
    if _OFFICIAL_MERGE in tensors:
        tensors = {_merge_moved(name): tensor for name, tensor in tensors.items()}
    classifiers = tuple(f"{name}." for name in _classifiers(trunk))
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in known or not (_NOT_OF_A_TRUNK.search(name) or name.startswith(classifiers))
    }


def filtered_by_timm(tensors: Mapping[str, Tensor], trunk: nn.Module) -> Mapping[str, Tensor]:
    """Tensors after the conversion timm's module of `trunk` defines for old files, where there is one.

    Not for Swin: timm would silently resize its position tables.
    """
    convert = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    converted: Mapping[str, Tensor] = convert(dict(tensors), trunk) if convert else tensors
    return converted


def _merge_moved(name: str) -> str:
    """The official name of a patch merging under timm's numbering; others unchanged.

    >>> _merge_moved("layers.0.downsample.norm.bias")
    'layers.1.downsample.norm.bias'
    """
    return re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)


def _unwrapped(name: str, known: Container[str]) -> str:
    """The name without its wrappers.

    >>> _unwrapped("module.backbone.norm.weight", {"norm.weight"})
    'norm.weight'
    """
    while name not in known and (prefix := next((p for p in _PREFIXES if name.startswith(p)), "")):
        name = name.removeprefix(prefix)
    return name


def _classifiers(trunk: nn.Module) -> tuple[str, ...]:
    """Modules that hold the classifier in published files of this model, such as ResNet's `fc`."""
    named = getattr(trunk, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _weights_in(content: Mapping[str, Any], path: Path) -> Mapping[str, Tensor]:
    """The tensors of a training script's dict: those under `model`, `teacher`, ..., or all of them."""
    inner = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)
    tensors = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors, at its top or under {', '.join(_CONTAINERS)}")
    return tensors


def _read(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    if path.name.endswith(".safetensors.index.json"):
        return _read_index(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return _read_pickle(path)
    raise ValueError(f"{path}: expected .pth, .pt, .bin, .safetensors, .safetensors.index.json or a folder")


def _read_folder(folder: Path) -> Mapping[str, Any]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return _read_index(indices[0])
    shards = sorted(folder.glob("*.safetensors"))
    if indices or not shards:
        raise ValueError(
            f"{folder} holds {len(indices)} indices and {len(shards)} .safetensors; pass one file"
        )
    return _merged(shards)


def _read_index(index: Path) -> Mapping[str, Any]:
    weight_map = json.loads(index.read_text())["weight_map"]
    names = sorted(set(weight_map.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index} names files outside its folder: {', '.join(outside)}")
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise ValueError(f"{index}: shards missing beside it: {', '.join(absent)}")
    merged = _merged([index.parent / name for name in names])
    if merged.keys() != weight_map.keys():
        differing = sorted(merged.keys() ^ weight_map.keys())
        raise ValueError(f"{index} and its shards do not hold the same tensors: {', '.join(differing[:20])}")
    return merged


def _merged(shards: list[Path]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for shard in shards:
        tensors = load_file(shard)
        if twice := sorted(merged.keys() & tensors.keys()):
            raise ValueError(f"{shard} repeats {', '.join(twice[:20])} of another shard")
        merged.update(tensors)
    return merged


def _read_pickle(path: Path) -> Mapping[str, Any]:
    # EsViT's files carry an argparse.Namespace, SimMIM's a yacs node: a dict with attributes. Filling
    # these runs no code, and yacs need not be there.
    inert: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
    with torch.serialization.safe_globals(inert):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict of tensors")
    weights: Mapping[str, Any] = content
    return weights
