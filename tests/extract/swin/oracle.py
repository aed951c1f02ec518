"""transformers' SwinV2 on the weights of one of our backbones: it pads first, as the official code."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from extract.backbones.registry import BackboneCard

# Larger than any window times 32, so that no window is clipped and no shift is dropped.
CONSTRUCTION_PX = 4096


def build_oracle(
    card: BackboneCard, tensors: Mapping[str, Tensor], native_px: int | None = None
) -> nn.Module:
    """`transformers.Swinv2Backbone` of a SwinV2 card: NCHW normalised pixels in, four NCHW maps out.

    Args:
        native_px: side of the images it is built for, by its own rule `cover`; None: any, by `partition`.
    """
    from transformers import Swinv2Backbone, Swinv2Config

    blocks = [name for name in tensors if name.endswith("attn.logit_scale")]
    config = Swinv2Config(
        image_size=native_px or CONSTRUCTION_PX,
        embed_dim=len(tensors["patch_embed.proj.bias"]),
        depths=[sum(name.startswith(f"layers.{stage}.") for name in blocks) for stage in range(4)],
        num_heads=[len(tensors[f"layers.{stage}.blocks.0.attn.logit_scale"]) for stage in range(4)],
        window_size=card.windows[0][0],
        pretrained_window_sizes=[window[0] for window in card.pretrained_windows],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    oracle = Swinv2Backbone(config).eval()
    if native_px is None:
        for stage, window in zip(oracle.encoder.layers, card.windows, strict=True):
            _set_window(stage, window[0])
    renamed = {new: value for name, tensor in tensors.items() for new, value in _renamed(name, tensor)}
    missing, unexpected = oracle.load_state_dict(renamed, strict=False)
    # The backbone class has no final norm; its own mask token is not used.
    assert set(unexpected) == {"norm.weight", "norm.bias"} and not missing, (missing, unexpected)
    return oracle


def _set_window(stage: nn.Module, window: int) -> None:
    """A window of its own for a stage: transformers has one for all."""
    for index, block in enumerate(stage.blocks):
        attention = block.attention.self
        block.window_size, block.shift_size = window, (index % 2) * (window // 2)
        attention.window_size = (window, window)
        table, position = attention.create_coords_table_and_index()
        attention.relative_coords_table, attention.relative_position_index = table, position


_BLOCK_NAMES = {
    "attn.logit_scale": "attention.self.logit_scale",
    "attn.q_bias": "attention.self.query.bias",
    "attn.v_bias": "attention.self.value.bias",
    "attn.cpb_mlp": "attention.self.continuous_position_bias_mlp",
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _renamed(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if name.startswith("patch_embed."):
        place = name.removeprefix("patch_embed.").replace("proj", "patch_embeddings.projection")
        return [(f"embeddings.{place}", tensor)]
    if ".downsample." in name:
        _, stage, rest = name.split(".", 2)
        return [(f"encoder.layers.{int(stage) - 1}.{rest}", tensor)]
    if ".attn.qkv.weight" in name:
        stem = f"encoder.{name.removesuffix('attn.qkv.weight')}attention.self."
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return [(f"{stem}{part}.weight", values) for part, values in parts]
    for ours, theirs in _BLOCK_NAMES.items():
        if f".{ours}" in name:
            return [(f"encoder.{name.replace(ours, theirs)}", tensor)]
    return [(name, tensor)]


@torch.inference_mode()
def oracle_levels(oracle: nn.Module, x_NHWC: Tensor) -> list[Tensor]:
    """The oracle's four maps, (N, y, x, C), of normalised pixels (N, H, W, 3)."""
    maps = oracle(x_NHWC.permute(0, 3, 1, 2)).feature_maps
    return [level.permute(0, 2, 3, 1) for level in maps]
