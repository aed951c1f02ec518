"""Depth-wise kernels as attention: distance in pixels, entropy and KL between the channels of a layer.

Weights of a channel over its kernel, made to sum to 1, stand for attention over offsets. They depend on no
data. KL of a channel is the mean over the other channels j of KL(channel || j).

Letters in tensor names: C channels, K places of the kernel.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from extract.analysis.attention_statistics import grid_distances_px

Sign = Literal["abs", "square", "softmax"]
"""How weights become shares: |w|, w squared, or exp(w), divided by their sum over the kernel."""
LEAST_SIDE = 5
"""Smaller kernels see their neighbours only."""
_FLOOR = 1e-12
_PROBE_PX = 224
_STAGE_STRIDE_PX = {"0": 4, "1": 8, "2": 16, "3": 32}


@dataclass(frozen=True, slots=True, eq=False)
class DepthwiseLayer:
    """One layer."""

    name: str
    weight_Cyx: Tensor
    stride_px: float
    """Pixels of the network's input a cell of the layer's input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelStatistics:
    """Of one layer, a value for each channel."""

    distance_px: list[float]
    entropy_nats: list[float]
    kl_nats: list[float]
    entropy_limit: float
    """ln of the number of weights of a kernel."""


def kernel_statistics(layer: DepthwiseLayer, sign: Sign = "abs") -> KernelStatistics:
    """Distance from the kernel's centre, entropy, and KL to the other channels.

    KL takes time linear in the channels: the mean over j of sum_k p_c (ln p_c - ln p_j) needs the sum over
    channels of ln p alone. Shares are floored at 1e-12 and made to sum to 1 again.
    """
    channels, rows, columns = layer.weight_Cyx.shape
    w_CK = layer.weight_Cyx.detach().double().flatten(1)
    shares_CK = w_CK.abs() if sign == "abs" else w_CK.square() if sign == "square" else w_CK.softmax(1)
    shares_CK = (shares_CK / shares_CK.sum(1, keepdim=True).clamp(min=_FLOOR)).clamp(min=_FLOOR)
    p_CK = shares_CK / shares_CK.sum(1, keepdim=True)
    log_CK = p_CK.log()
    centre = grid_distances_px(2 * rows - 1, 2 * columns - 1, layer.stride_px / 2)
    # On a grid of half cells the centre of an even kernel is a point too.
    middle = (rows - 1) * (2 * columns - 1) + (columns - 1)
    from_centre_K = centre[middle].view(2 * rows - 1, 2 * columns - 1)[::2, ::2].flatten()
    own_C = (p_CK * log_CK).sum(1)
    others_CK = log_CK.sum(0) - log_CK
    kl_C = own_C - (p_CK * others_CK).sum(1) / max(1, channels - 1)
    return KernelStatistics(
        distance_px=(p_CK @ from_centre_K.to(p_CK.device)).tolist(),
        entropy_nats=(-own_C).tolist(),
        kl_nats=(kl_C if channels > 1 else torch.zeros_like(kl_C)).tolist(),
        entropy_limit=math.log(rows * columns),
    )


def depthwise_layers(trunk: nn.Module) -> list[DepthwiseLayer]:
    """Depth-wise convolutions of a model with kernels of 5 and more, in the order in which they run.

    Args:
        trunk: with its weights; a copy on the meta device runs once, for the strides.
    """
    chosen = {name: m for name, m in trunk.named_modules() if isinstance(m, nn.Conv2d) and _is_wide(m)}
    if not chosen:
        return []
    strides = dict(_strides(trunk, set(chosen)))
    return [
        DepthwiseLayer(name, chosen[name].weight.squeeze(1), stride_px) for name, stride_px in strides.items()
    ]


def _is_wide(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels > 1 and max(conv.kernel_size) >= LEAST_SIDE


def _strides(trunk: nn.Module, names: set[str]) -> Iterator[tuple[str, float]]:
    meta: Any = copy.deepcopy(trunk).to("meta").eval()
    found: dict[str, float] = {}

    def hook(name: str) -> Any:
        def call(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found.setdefault(name, _PROBE_PX / inputs[0].shape[-1])

        return call

    handles = [m.register_forward_pre_hook(hook(name)) for name, m in meta.named_modules() if name in names]
    with torch.no_grad():
        meta.forward_features(torch.empty(1, 3, _PROBE_PX, _PROBE_PX, device="meta"))
    for handle in handles:
        handle.remove()
    yield from found.items()


def layers_of_state(state: Mapping[str, Tensor]) -> list[DepthwiseLayer]:
    """Merged large kernels of RepLKNet in a state dict: `stages.<i>...lkb_reparam.weight`.

    Strides are those of its stages, 4 to 32. Raises ValueError where it holds none; kernels that are not
    merged yet (`lkb_origin`) are named, because their norms would have to be merged in first.
    """
    found = [
        DepthwiseLayer(name, weight.squeeze(1), _stage_stride_px(name))
        for name, weight in state.items()
        if name.endswith("lkb_reparam.weight") and weight.ndim == 4 and weight.shape[1] == 1
    ]
    if not found:
        unmerged = any("lkb_origin" in name for name in state)
        raise ValueError(
            "its large kernels are not merged (lkb_origin): run RepLKNet's structural_reparam and save again"
            if unmerged
            else "no depth-wise kernels of RepLKNet (lkb_reparam.weight) in it; pass --model for others"
        )
    return found


def _stage_stride_px(name: str) -> float:
    stage = re.search(r"stages\.(\d)\.", name)
    if stage is None or stage[1] not in _STAGE_STRIDE_PX:
        raise ValueError(f"{name}: expected a name in stages.0 to stages.3, which say the stride")
    return float(_STAGE_STRIDE_PX[stage[1]])
