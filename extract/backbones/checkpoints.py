"""Reads checkpoint files of every origin; tensors are named as in timm.

Handled: timm's own safetensors, the official Microsoft .pth (dict `model`), SimMIM (`encoder.` prefix),
EsViT (`teacher` or `student`, `module.` prefix; Swin V1), safetensors in one file or in shards; for models
that are no Swin those of extract/backbones/origins. No code of a file is ever run: pickles load with
`weights_only`.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from extract.backbones.origins.candidates import named_as_timm
from extract.backbones.origins.prefixes import all_unwrapped
from extract.swin.timm_swin import SWIN_FAMILIES
from stores.small_files import read_json

_CONTAINERS = ("model", "state_dict", "teacher", "student", "module", "target_encoder", "model_ema")
"""Keys a training script may have put its weights under; EsViT, DINO and MSN evaluate the teacher."""
_NESTED = 2
"""How many nested containers are searched: `{"model": {"state_dict": ...}}` and no cycle."""
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Ends of the names of files that torch.save wrote; `checkpoint.pth.tar` is one too."""
_CHUNK_BYTES = 16 << 20  # 16 MiB read at a time for a checksum
_NOT_OF_A_TRUNK = re.compile(
    r"relative_position_index|relative_coords_table|attn_mask|^mask_token$|^decoder\.|^head(_dense)?\."
)
"""Buffers that follow from the windows, SimMIM's own parts, and the classifiers of Swin files."""
_OFFICIAL_MERGE = "layers.0.downsample.reduction.weight"
"""Official files merge patches at the end of a stage, timm at the start of the next one."""
_COORDINATES = "relative_coords_table"


_DAMAGED = (
    SafetensorError,
    EOFError,
    RuntimeError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    LookupError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that the format readers raise for damaged or foreign bytes."""


def read_checkpoint(path: Path | str, trunk: nn.Module) -> dict[str, Tensor]:
    """The tensors of a checkpoint, named as in `trunk`, on the CPU, in the file's own dtypes.

    Args:
        path: a .safetensors, a .pth (or .pt, .bin, .ckpt), an index (`*.safetensors.index.json`) or a folder.
        trunk: the timm model they are for, without classifier; a name it holds is never dropped.

    Raises:
        ValueError: the file is none of these, is damaged, holds more than tensors, or was made for position
            coordinates that are not the trunk's.
    """
    path = Path(path)
    content = _weights_in(_read(path), path)
    if type(trunk) not in SWIN_FAMILIES:
        return named_as_timm(content, trunk)
    tensors = _timm_names(content, trunk)
    _require_same_coordinates(tensors, trunk, path)
    return _of_the_trunk(tensors, trunk)


def tensors_of_file(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint under the names of the file. Raises ValueError as `read_checkpoint`."""
    return _weights_in(_read(path), path)


def _not_whole(path: Path, reason: str) -> ValueError:
    """The error for a file that is not what its name says. Its size and first bytes distinguish an
    interrupted download from a web page or a Git LFS pointer."""
    with path.open("rb") as file:
        beginning = file.read(24)
    size = path.stat().st_size
    found = f"{size} bytes, beginning with {beginning!r}" if size else "an empty file"
    return ValueError(f"{path} is not a complete checkpoint: {reason or 'it ends too early'} ({found})")


def _reason(error: Exception) -> str:
    """The cause in torch's message, without its advice to load without checks."""
    text = str(error)
    specific = re.search(r"unsupported .*", text, re.IGNORECASE)
    line = specific[0] if specific else text.partition("\n")[0]
    return re.split(r"In PyTorch |Please |This is an internal ", line)[0].strip().rstrip(".")


def _timm_names(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Tensors under timm's names: prefixes stripped, patch merges renumbered."""
    unwrapped = all_unwrapped(tensors, trunk.state_dict().keys())
    if _OFFICIAL_MERGE in unwrapped:
        return {_merge_moved(name): tensor for name, tensor in unwrapped.items()}
    return unwrapped


def _of_the_trunk(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Drops classifiers, SimMIM's own parts and buffers derived from the windows."""
    known = trunk.state_dict().keys()
    return {
        name: tensor for name, tensor in tensors.items() if name in known or not _NOT_OF_A_TRUNK.search(name)
    }


def _require_same_coordinates(tensors: Mapping[str, Tensor], trunk: nn.Module, path: Path) -> None:
    """Refuses SwinV2 weights whose position coordinates are relative to other windows than the trunk's.

    All shapes of such a file fit, so its features would be silently wrong. Official files hold the windows
    in a table of coordinates that timm does not keep.
    """
    modules = dict(trunk.named_modules())
    for name, table in tensors.items():
        if not name.endswith(_COORDINATES):
            continue
        module = modules.get(name.removesuffix(f".{_COORDINATES}"))
        ours = tuple(getattr(module, "pretrained_window_size", ()))
        theirs = _pretrained_window(table)
        if any(ours) and theirs and theirs != ours:
            raise ValueError(
                f"{path}: {name} is relative to windows of {theirs[0]}x{theirs[1]} cells, the model's "
                f"coordinates to {ours[0]}x{ours[1]}; take the model of this checkpoint (such as "
                f"timm:swinv2_base_window16_256.ms_in1k), or pass pretrained_window_sizes by --model-args"
            )


def _pretrained_window(table: Tensor) -> tuple[int, int] | None:
    """The window that a table of coordinates (1, 2h-1, 2w-1, 2) of a window h x w is relative to.

    Its largest value is log2(1 + 8 r) / log2(8), where r = (w - 1) / (pretrained w - 1); None for a table
    that does not say (microsoft/Swin-Transformer:models/swin_transformer_v2.py).

    >>> _pretrained_window(torch.full((1, 15, 15, 2), 1.05664))
    (8, 8)
    >>> _pretrained_window(torch.zeros(1, 15, 15, 2))
    """
    if table.ndim != 4 or table.shape[-1] != 2 or min(table.shape[1:3]) < 3:
        return None
    largest = table.float().reshape(-1, 2).amax(0).tolist()
    ratios = [(2 ** (3 * value) - 1) / 8 for value in largest]
    if not all(0.01 < ratio < 100 for ratio in ratios):
        return None
    height, width = ((side - 1) / 2 / ratio + 1 for side, ratio in zip(table.shape[1:3], ratios, strict=True))
    return round(height), round(width)


def _merge_moved(name: str) -> str:
    """The official name of a patch merging under timm's numbering; others unchanged.

    >>> _merge_moved("layers.0.downsample.norm.bias")
    'layers.1.downsample.norm.bias'
    """
    return re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)


def _weights_in(content: Mapping[Any, Any], path: Path) -> Mapping[str, Tensor]:
    """The tensors of a training script's dict: those under `model`, `teacher`, ..., or all of them."""
    if tensors := _tensors_of(content, _NESTED):
        return tensors
    held = ", ".join(sorted(map(str, content))[:12]) or "nothing"
    raise ValueError(
        f"{path} holds no tensors at its top level or under {', '.join(_CONTAINERS)}; its keys: {held}"
    )


def _tensors_of(content: Mapping[Any, Any], nested: int) -> Mapping[str, Tensor]:
    """Those of the first container that has any, else of `content` itself."""
    for key in _CONTAINERS if nested else ():
        inner = content.get(key)
        if isinstance(inner, Mapping) and (found := _tensors_of(inner, nested - 1)):
            return found
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _read(path: Path) -> Mapping[Any, Any]:
    if path.is_dir():
        return _read_folder(path)
    name = path.name.lower()
    if name.endswith(".safetensors"):
        return _read_safetensors(path)
    if name.endswith(".safetensors.index.json"):
        return _read_index(path)
    if name.endswith(_PICKLES):
        return _read_pickle(path)
    raise ValueError(
        f"{path}: expected {', '.join(_PICKLES)}, .safetensors, .safetensors.index.json or a folder"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except _DAMAGED as error:
        raise _not_whole(path, _reason(error)) from error
    return tensors


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
    try:
        weight_map = read_json(index, 64 << 20)["weight_map"]
        names_all_files = all(isinstance(name, str) for name in weight_map.values())
    except _DAMAGED as error:
        raise _not_whole(index, f"{type(error).__name__}: {error}") from error
    if not names_all_files:
        raise ValueError(f'{index}: expected {{"weight_map": {{"<tensor>": "<file>", ...}}}}')
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
        tensors = _read_safetensors(shard)
        if twice := sorted(merged.keys() & tensors.keys()):
            raise ValueError(f"{shard} repeats {', '.join(twice[:20])} of another shard")
        merged.update(tensors)
    return merged


def _read_pickle(path: Path) -> Mapping[Any, Any]:
    # EsViT's files carry an argparse.Namespace, SimMIM's a yacs node: a dict with attributes. Filling
    # these runs no code, and yacs need not be there.
    inert: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
    try:
        _require_checksums(path)
        with torch.serialization.safe_globals(inert):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise _not_whole(path, _reason(error)) from error
    except UnpicklingError as error:
        if "Unsupported operand" in str(error):  # no pickle, or one of a protocol that torch never writes
            raise _not_whole(path, _reason(error)) from error
        raise ValueError(
            f"{path} holds more than tensors and was not loaded: {_reason(error)}. If you trust it, save "
            f"only its weights as .safetensors"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict of tensors")
    weights: Mapping[Any, Any] = content
    return weights


def _require_checksums(path: Path) -> None:
    """Raises BadZipFile where a part of torch's zip file is not what was saved: torch.load compares no
    checksum. A file saved with `set_crc32_options(False)` has zeros in their place: not compared."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.CRC:
                with archive.open(part) as file:
                    while file.read(_CHUNK_BYTES):
                        pass
