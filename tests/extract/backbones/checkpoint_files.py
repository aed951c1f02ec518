"""Writes a trunk's tensors as each origin publishes them."""

import argparse
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = Mapping[str, Tensor]


def _official_names(tensors: Tensors) -> dict[str, Tensor]:
    """Merges at the end of a stage, buffers of the windows, a classifier: microsoft/Swin-Transformer."""
    named = {
        re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): tensor
        for name, tensor in tensors.items()
    }
    buffers = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(64, 64, dtype=torch.int64),
        "layers.0.blocks.0.attn.relative_coords_table": torch.zeros(1, 15, 15, 2),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 64, 64),
    }
    return {**named, **buffers, "head.weight": torch.zeros(10, 8), "head.bias": torch.zeros(10)}


def microsoft(tensors: Tensors, folder: Path) -> Path:
    torch.save({"model": _official_names(tensors)}, folder / "swinv2.pth")
    return folder / "swinv2.pth"


def simmim(tensors: Tensors, folder: Path) -> Path:
    """With a yacs configuration, as its training script saves it, and without yacs where it is read."""
    own = {name: tensor for name, tensor in _official_names(tensors).items() if not name.startswith("head.")}
    model = {f"encoder.{name}": tensor for name, tensor in own.items()}
    model |= {"encoder.mask_token": torch.zeros(1, 1, 32), "decoder.0.weight": torch.zeros(3, 8, 1, 1)}
    config = types.ModuleType("yacs.config")
    config.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    with mock.patch.dict(sys.modules, {"yacs": types.ModuleType("yacs"), "yacs.config": config}):
        node = config.CfgNode(MODEL=config.CfgNode(TYPE="swinv2"), SEED=0)
        node.frozen = True
        torch.save({"model": model, "config": node, "epoch": 3}, folder / "simmim.pth")
    return folder / "simmim.pth"


def esvit(tensors: Tensors, folder: Path) -> Path:
    """Student and teacher differ; the teacher is what EsViT evaluates."""
    teacher = {f"module.{name}": tensor for name, tensor in _official_names(tensors).items()}
    teacher |= {"module.head_dense.last_layer.weight": torch.zeros(3, 3)}
    student = {name: torch.zeros_like(tensor) for name, tensor in teacher.items()}
    content = {
        "student": student,
        "teacher": teacher,
        "epoch": 1,
        "args": argparse.Namespace(arch="swin_tiny"),
    }
    torch.save(content, folder / "esvit.pth")
    return folder / "esvit.pth"


def bare(tensors: Tensors, folder: Path) -> Path:
    torch.save(dict(tensors), folder / "state.bin")
    return folder / "state.bin"


def safetensors(tensors: Tensors, folder: Path) -> Path:
    save_file({**tensors, "head.fc.weight": torch.zeros(10, 8)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def sharded_folder(tensors: Tensors, folder: Path) -> Path:
    """Three shards and their index, as huggingface_hub splits a large model; the folder is what is passed."""
    names = sorted(tensors)
    shards = {f"model-{i + 1:05}-of-00003.safetensors": names[i::3] for i in range(3)}
    for file, held in shards.items():
        save_file({name: tensors[name].contiguous() for name in held}, folder / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def sharded_index(tensors: Tensors, folder: Path) -> Path:
    return sharded_folder(tensors, folder) / "model.safetensors.index.json"


def shards_without_index(tensors: Tensors, folder: Path) -> Path:
    (sharded_folder(tensors, folder) / "model.safetensors.index.json").unlink()
    return folder


V2_WRITERS: tuple[Callable[[Tensors, Path], Path], ...] = (
    microsoft,
    simmim,
    bare,
    safetensors,
    sharded_folder,
    sharded_index,
    shards_without_index,
)
