"""torch.compile: whether it works on a device, and functions compiled once for any size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

logger = logging.getLogger(__name__)


@lru_cache(maxsize=8)  # devices of a machine
def compiles(device: torch.device) -> bool:
    """Whether backbones are compiled by default: on a GPU, which needs Triton and a C compiler.

    A trial compilation decides; if it fails, a warning gives the reason.

    An uncompiled backbone gives the same features within its precision, at half the speed or less.
    """
    if device.type != "cuda":
        return False
    import torch._dynamo  # late: 1.2 s of a processor, for GPUs alone

    try:
        _compile_something(device)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ImportError, OSError) as error:
        problem = (str(error) or repr(error)).splitlines()[0]
        logger.warning("backbones run uncompiled, at half the speed or less: %s", problem)
        return False
    return True


def _compile_something(device: torch.device) -> None:
    torch.compile(torch.relu)(torch.zeros(2, device=device))


def allow_variants() -> None:
    """Raises dynamo's limit of eight compiled variants of a function: the four stages of several backbones
    need more."""
    import torch._dynamo  # late: 1.2 s of a processor

    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)


def compiled_of_any_size(
    function: Callable[..., Any],
    sizes: Mapping[int, tuple[int, ...]],
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`function` compiled once for any number of images, tokens and windows, instead of for a minute in each
    bin.

    Args:
        sizes: position of an argument -> those of its axes.
        options: of torch's compiler.
    """
    import torch._dynamo  # late: 1.2 s of a processor

    compiled = torch.compile(function, dynamic=False, options=dict(options or {}))

    def call(*arguments: Any) -> Any:
        for position, axes in sizes.items():
            for axis in axes:
                torch._dynamo.maybe_mark_dynamic(arguments[position], axis)
        return compiled(*arguments)

    return call
