"""torch.compile for necks, as listed in the table of necks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heads.contract import Head
from heads.necks.table import find_neck

logger = logging.getLogger(__name__)

Compile = Literal["necks", "none"]


def compiles_necks(choice: Compile | None, device: torch.device) -> bool:
    """Whether `--compile` applies on a device; by default on GPUs only."""
    return choice == "necks" if choice else device.type == "cuda"


def compile_necks(head: Head, **options: Any) -> int:
    """Compiles the necks of a head for training mode; returns how many.

    In evaluation they run uncompiled, since every size of a test view would be compiled anew. Parameters
    and their names stay. Where compiling fails, a warning says so and the neck runs uncompiled.
    """
    necks = {name: neck for name, neck in head.necks.items() if find_neck(name).compiles}
    for name, neck in necks.items():
        neck.forward = _CompiledInTraining(name, neck, options)
    return len(necks)


class _CompiledInTraining:
    """The forward of a neck, compiled or plain."""

    def __init__(self, name: str, neck: nn.Module, options: dict[str, Any]) -> None:
        self._name, self._neck, self._plain = name, neck, neck.forward
        self._compiled: Callable[..., Any] | None = torch.compile(neck.forward, **options)

    def __call__(self, maps: Sequence[Tensor]) -> list[Tensor]:
        if self._compiled is not None and self._neck.training:
            try:
                found: list[Tensor] = self._compiled(maps)
                return found
            except torch._dynamo.exc.TorchDynamoException as error:  # no compiler, or none that can do it
                logger.warning("neck %s runs uncompiled: %s", self._name, str(error).splitlines()[0])
                self._compiled = None
        plain: list[Tensor] = self._plain(maps)
        return plain
