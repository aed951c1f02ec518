"""Whether torch's compiler can be used: on a GPU it needs Triton and a C compiler."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
import torch._dynamo

logger = logging.getLogger(__name__)


@lru_cache(maxsize=8)  # devices of a machine
def compiles(device: torch.device) -> bool:
    """Whether a backbone is compiled by itself: on a GPU, unless a trial fails; a warning then says why.

    A backbone that runs as it is gives the same features within its precision, at half the speed or less.
    """
    if device.type != "cuda":
        return False
    try:
        _compile_something(device)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ImportError, OSError) as error:
        problem = (str(error) or repr(error)).splitlines()[0]
        logger.warning("backbones run uncompiled, at half the speed or less: %s", problem)
        return False
    return True


def _compile_something(device: torch.device) -> None:
    torch.compile(torch.relu)(torch.zeros(2, device=device))
