"""Parameters and multiply-adds of a head for one row: counted, not measured, without memory for weights.

Products, convolutions and attention are counted, by torch's FlopCounterMode on fake tensors: norms, sampling
of deformable attention, resizing and losses are not. RoI heads are counted at the boxes of a test, which are
as many as the settings allow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from heads import build_head
from heads.contract import Head
from heads.detection.base import DetectionHead
from heads.detection.box_head import BOX_CELLS, BoxHead
from heads.detection.mask_head import MASK_CELLS, MaskHead
from stores.pyramid import PyramidSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadCosts:
    """Of one row of the store."""

    parameters: int
    """Trainable."""
    neck_parameters: int
    """Those of necks, of a pixel decoder and of what makes a pyramid of a plain ViT's maps."""
    multiply_adds: int
    neck_multiply_adds: int


def head_costs(
    name: str,
    task: str,
    pyramid: PyramidSpec,
    num_classes: int,
    padded_hw: tuple[int, int],
    *,
    frames: int | None = None,
    **settings: Any,
) -> HeadCosts:
    """The costs of a head.

    Args:
        name, task, pyramid, num_classes, settings: as of `heads.build_head`.
        padded_hw: size of the views in pixels.
        frames: of a clip; None for images.

    Raises HeadError where the head cannot be built on these levels.
    """
    return _counted(name, task, pyramid, num_classes, padded_hw, frames, json.dumps(settings, sort_keys=True))


@cache
def _counted(
    name: str,
    task: str,
    pyramid: PyramidSpec,
    num_classes: int,
    padded_hw: tuple[int, int],
    frames: int | None,
    settings: str,
) -> HeadCosts:
    with torch.device("meta"):
        head = build_head(name, task, pyramid, num_classes, **json.loads(settings)).eval()
    necks = list(_necks(head))
    parameters, of_necks = _parameters([head]), _parameters(necks)
    with FakeTensorMode(), torch.no_grad():
        _on_cpu(head)
        length = () if frames is None else (frames,)
        features = {
            level.name: torch.empty(1, level.channels, *length, *(level.cells(side) for side in padded_hw))
            for level in pyramid.select(head.levels)
        }
        with FlopCounterMode(display=False) as counter:
            inside = _Inside(counter, necks)
            _run(head, features, padded_hw)
    return HeadCosts(
        parameters=parameters,
        neck_parameters=of_necks,
        multiply_adds=counter.get_total_flops() // 2,
        neck_multiply_adds=inside.flops // 2,
    )


class _Inside:
    """What is counted inside some modules, none of which holds another."""

    def __init__(self, counter: FlopCounterMode, modules: Sequence[nn.Module]) -> None:
        self._counter, self.flops = counter, 0
        for module in modules:
            module.register_forward_pre_hook(lambda *_: self._add(-1))
            module.register_forward_hook(lambda *_: self._add(1))

    def _add(self, sign: int) -> None:
        self.flops += sign * self._counter.get_total_flops()


def _on_cpu(head: Head) -> None:
    """Fake tensors of the CPU in place of those of the meta device, which autocast does not know."""
    for module in head.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made: Any = nn.Parameter(fake, requires_grad=False) if is_parameter else fake
                    tensors[name] = made


def _run(head: Head, features: dict[str, Tensor], padded_hw: tuple[int, int]) -> None:
    """One row through everything that is counted; no choice in it follows from values."""
    if not isinstance(head, DetectionHead):
        head(features, [padded_hw])
        return
    maps = head.neck_maps(features, [padded_hw])
    head.rpn(maps)
    if isinstance(semantic := getattr(head, "semantic", None), nn.Module):
        semantic(maps)
    width, settings = head.settings.width, head.settings
    for module in head.modules():
        if isinstance(module, BoxHead):
            module(torch.empty(settings.test_proposals, width, BOX_CELLS, BOX_CELLS))
        elif isinstance(module, MaskHead):
            pooled = torch.empty(settings.detections, width, MASK_CELLS, MASK_CELLS)
            module(pooled, torch.zeros(settings.detections, dtype=torch.int64))


def _necks(head: Head) -> Iterator[nn.Module]:
    yield from head.necks.values()
    for part in (head.rescaled, getattr(head, "pixel_decoder", None)):
        if isinstance(part, nn.Module):
            yield part


def _parameters(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
