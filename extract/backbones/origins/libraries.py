"""Libraries by the names of their tensors, for messages about weights that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LIBRARIES = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("transformers' (a vision model)", r"embeddings\.(patch_embeddings?|cls_token|class_embedding)"),
        ("transformers' (a text model)", r"embeddings\.word_embeddings|text_model\."),
        ("OpenAI's or open_clip's CLIP", r"(^|\.)(visual\.)?transformer\.resblocks\.\d"),
        ("Segment Anything", r"image_encoder\.|mask_decoder\."),
        ("torchvision's ViT", r"layers\.encoder_layer_\d"),
        ("OpenMMLab's Swin", r"(stages|layers)\.\d+\.blocks\.\d+\.attn\.w_msa"),
        ("OpenMMLab's ViT", r"layers\.\d+\.(ln1|ffn\.layers)\."),
        ("a Swin of timm or Microsoft", r"layers\.\d+\.blocks\.\d+\.(attn|norm1|mlp)\."),
        ("torchvision's Swin", r"features\.\d+\.\d+\.(attn|norm1|mlp)\."),
        ("a ViT of timm or Meta (DINO, DINOv2, MAE, DeiT)", r"blocks\.\d+\.(attn\.qkv|mlp\.fc1)"),
        ("a ConvNeXt of timm or Meta", r"stages\.\d+\.(blocks\.)?\d+\.(conv_dw|dwconv|gamma)"),
        ("a ResNet of torchvision or timm", r"layer[1-4]\.\d+\.(conv|bn)\d"),
        ("EfficientNet-PyTorch's", r"^_blocks\.\d+\._(depthwise|project)_conv"),
        ("an EfficientNet of timm", r"blocks\.\d+\.\d+\.conv_(pw|dw)"),
        ("Detectron2's", r"backbone\.bottom_up|\.res[2-5]\."),
        ("torchvision's", r"^features\.\d"),
    )
)


def library_of(names: Iterable[str]) -> str | None:
    """Whose names most of `names` look like; None where they look like nobody's.

    >>> library_of(["visual.transformer.resblocks.0.ln_1.weight", "logit_scale"])
    "OpenAI's or open_clip's CLIP"
    >>> library_of(["a.weight"]) is None
    True
    """
    listed = list(names)
    counts = {library: sum(bool(found.search(name)) for name in listed) for library, found in _LIBRARIES}
    library = max(counts, key=lambda each: counts[each])
    return library if counts[library] else None
