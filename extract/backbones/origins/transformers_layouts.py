"""transformers' vision models under the names that timm's conversions know: those of Meta's own files.

Dinov2, Dinov2WithRegisters, DINOv3ViT, Siglip, CLIP and ViT (with which DINO, MAE and MSN are published), as
transformers 4 and 5 name their parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_IS = re.compile(r"(^|\.)embeddings\.(patch_embeddings?|cls_token|class_embedding)\b")
_OUTER = re.compile(r"^((model|vision_model|dinov2|dinov2_with_registers|dinov3|vit|backbone|encoder)\.)+")
_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
        (r"^embeddings\.position_embeddings?(\.weight)?$", "pos_embed"),
        (r"^embeddings\.patch_embeddings?(\.projection)?\.", "patch_embed.proj."),
        (r"^embeddings\.", ""),
        (r"^layers?\.(\d+)\.", r"blocks.\1."),
        (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
        (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
        (r"\.(attention\.attention|attention|self_attn)\.(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
        (
            r"\.(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.",
            ".attn.proj.",
        ),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
        (r"^(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
        (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        (r"\.mlp\.weights_in\.", ".mlp.w12."),
        (r"\.mlp\.weights_out\.", ".mlp.w3."),
        (r"^(layernorm|post_layernorm)\.", "norm."),
        (r"^pre_layrnorm\.", "norm_pre."),
    )
)
_POOL = (("probe", "latent"), ("attention.out_proj", "proj"), ("layernorm", "norm"), ("mlp", "mlp"))
"""Siglip's head -> timm's attention pool, but for the projections of its attention."""
_DROPPED = re.compile(r"^(pooler|classifier|decoder|text_model|rope_embeddings)\.|position_ids$")


def is_transformers(names: Mapping[str, Tensor]) -> bool:
    """Whether names are those of a vision model of transformers."""
    return any(_IS.search(name) for name in names)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as Meta's own file of the model, or timm, names them; q, k and v as one."""
    named = {_renamed(name): tensor for name, tensor in tensors.items() if not _DROPPED.search(_inner(name))}
    named = _fused(named)
    if "pos_embed" in named and named["pos_embed"].ndim == 2:  # Siglip's and CLIP's
        named["pos_embed"] = named["pos_embed"][None]
    if "cls_token" in named and named["cls_token"].ndim == 1:  # CLIP's
        named["cls_token"] = named["cls_token"][None, None]
    if "register_tokens" in named and "pos_embed" not in named:  # DINOv3's
        named["storage_tokens"] = named.pop("register_tokens")
    return _pool(_gated(named))


def _inner(name: str) -> str:
    return _OUTER.sub("", name)


def _renamed(name: str) -> str:
    """
    >>> _renamed("vit.encoder.layer.3.attention.attention.query.weight")
    'blocks.3.attn.q.weight'
    >>> _renamed("model.layer.0.layer_scale1.lambda1")
    'blocks.0.ls1.gamma'
    """
    name = _inner(name)
    for pattern, to in _RULES:
        name = pattern.sub(to, name)
    return name


def _fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v joined; a bias that one of them lacks is 0."""
    found = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.attn\.[qkv]\.", name)}
    for name, query in tensors.items():
        if match := re.fullmatch(r"(.*\.attn)\.q\.(weight|bias)", name):
            parts = [tensors.get(f"{match[1]}.{part}.{match[2]}") for part in "qkv"]
            filled = [torch.zeros_like(query) if part is None else part for part in parts]
            found[f"{match[1]}.qkv.{match[2]}"] = torch.cat(filled)
    return found


def _gated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Feed-forward layers: Dinov2's gates as w12 and w3, DINOv3's as w1, w2 and w3, others as fc1 and fc2."""
    of_dinov3 = "storage_tokens" in tensors
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*\.mlp)\.(gate|up|down)_proj\.(weight|bias)", name)
        if match is None:
            found[name] = tensor
            continue
        mlp, part, kind = match[1], match[2], match[3]
        gate = tensors.get(f"{mlp}.gate_proj.{kind}")
        if gate is None:
            found[f"{mlp}.{'fc1' if part == 'up' else 'fc2'}.{kind}"] = tensor
        elif part == "down":
            found[f"{mlp}.w3.{kind}"] = tensor
        elif of_dinov3:
            found[f"{mlp}.{'w1' if part == 'gate' else 'w2'}.{kind}"] = tensor
        elif part == "up":
            found[f"{mlp}.w12.{kind}"] = torch.cat([gate, tensor])
    return found


def _pool(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Siglip's pooling head as timm's `attn_pool`."""
    found = {}
    for name, tensor in tensors.items():
        part = name.removeprefix("head.")
        if part == name or "head.probe" not in tensors:
            found[name] = tensor
        elif match := re.fullmatch(r"attention\.in_proj_(weight|bias)", part):
            width = len(tensor) // 3
            found[f"attn_pool.q.{match[1]}"], found[f"attn_pool.kv.{match[1]}"] = (
                tensor[:width],
                tensor[width:],
            )
        else:
            theirs, ours = next(pair for pair in _POOL if part.startswith(pair[0]))
            found[f"attn_pool.{ours}{part.removeprefix(theirs)}"] = tensor
    return found
