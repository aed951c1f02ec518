"""Inputs and outputs of every block of a frozen backbone, in one eager forward pass.

Letters in tensor names: N images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from extract.backbones.frozen import FrozenBackbone, full_accumulation
from extract.backbones.frozen_swin import FoldedSwin, Visit
from extract.backbones.levels import PLAIN, feature_info
from extract.swin.timm_swin import stages_of


@torch.inference_mode()
def visit_blocks(backbone: FrozenBackbone, pixels_NHWC: Tensor, valid_hw: Tensor, visit: Visit) -> None:
    """Runs a backbone image by image and calls `visit(name, module, input, output)` after each block of it.

    Names: patches are left out; `s<stage>.b<i>` and `merge<stage>` of a Swin, `s<stage>.b<i>` of other
    pyramids, `b<i>` of a plain ViT; all count from 1. Maps of a Swin are (1, y, x, C), those of other
    pyramids (1, C, y, x), tokens of a ViT (1, L, C).

    Args:
        pixels_NHWC: uint8 RGB, as of `FrozenBackbone.forward`; so is valid_hw.
    """
    pixels, valid = pixels_NHWC.to(backbone.device), valid_hw.to(backbone.device)
    images, network = torch.split(backbone.normalise(pixels, valid), 1), backbone.network
    with full_accumulation():
        if isinstance(network, FoldedSwin):
            for x_1HWC in images:
                network.outputs(x_1HWC, visit)
            return
        with _visited(block_modules(backbone), visit):
            for x_1HWC in images:
                network.outputs(x_1HWC)


def block_modules(backbone: FrozenBackbone) -> dict[str, nn.Module]:
    """The blocks of a backbone by name, in the order in which they run."""
    network = backbone.network
    if isinstance(network, FoldedSwin):
        named = zip(network.step_names[1:], network.steps[1:], strict=True)
        return {name: step for name, step in named if name.startswith("s")}
    trunk: Any = network.trunk
    if backbone.card.family == PLAIN:
        return {f"b{number}": block for number, block in enumerate(trunk.blocks, start=1)}
    stages = [stage.blocks for stage in stages_of(trunk)] if backbone.card.is_swin else _stages(trunk)
    return {
        f"s{number}.b{index}": block
        for number, stage in enumerate(stages, start=1)
        for index, block in enumerate(stage, start=1)
    }


def _stages(trunk: nn.Module) -> list[list[nn.Module]]:
    """Blocks of the stages of a pyramid: children of the container that holds the modules whose outputs are
    its maps; where these stand in none, the modules themselves."""
    names = [str(info["module"]) for info in feature_info(trunk)]
    parents = {name.rpartition(".")[0] for name in names}
    parent = parents.pop() if len(parents) == 1 else ""
    if parent and isinstance(held := trunk.get_submodule(parent), nn.Sequential | nn.ModuleList):
        stages: list[nn.Module] = list(held)
    else:
        stages = [trunk.get_submodule(name) for name in names]
    return [_blocks_of(stage) for stage in stages]


def _blocks_of(stage: nn.Module) -> list[nn.Module]:
    blocks = getattr(stage, "blocks", stage)
    return list(blocks) if isinstance(blocks, nn.Sequential | nn.ModuleList) else [stage]


@contextmanager
def _visited(modules: dict[str, nn.Module], visit: Visit) -> Iterator[None]:
    def hook(name: str) -> Any:
        def call(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            visit(name, module, inputs[0], output)

        return call

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
