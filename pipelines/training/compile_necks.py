"""torch.compile for the necks it pays for: the BiFPN (195 -> 115 ms of its five layers at 1024 px, H200)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heads.necks.bifpn import BiFPN

logger = logging.getLogger(__name__)

Compile = Literal["necks", "none"]


def compiles_necks(choice: Compile | None, device: torch.device) -> bool:
    """What `--compile` means on a device: by itself on GPUs only."""
    return choice == "necks" if choice else device.type == "cuda"


def compile_necks(head: nn.Module, **options: Any) -> int:
    """Lets the BiFPNs of a head run compiled while it is in training mode; returns how many it has.

    In evaluation they run as they are, since every size of a test view would be compiled anew. Parameters
    and their names stay. Where compiling fails, a warning says so and the neck runs as it is.
    """
    necks = [module for module in head.modules() if isinstance(module, BiFPN)]
    for neck in necks:
        neck.forward = _CompiledInTraining(neck, options)  # type: ignore[method-assign]
    return len(necks)


class _CompiledInTraining:
    """The forward of a neck, compiled or plain."""

    def __init__(self, neck: nn.Module, options: dict[str, Any]) -> None:
        self._neck, self._plain = neck, neck.forward
        self._compiled: Callable[..., Any] | None = torch.compile(neck.forward, **options)

    def __call__(self, maps: Sequence[Tensor]) -> list[Tensor]:
        if self._compiled is not None and self._neck.training:
            try:
                found: list[Tensor] = self._compiled(maps)
                return found
            except torch._dynamo.exc.TorchDynamoException as error:  # no compiler, or none that can do it
                logger.warning("the BiFPN runs uncompiled: %s", str(error).splitlines()[0])
                self._compiled = None
        plain: list[Tensor] = self._plain(maps)
        return plain
