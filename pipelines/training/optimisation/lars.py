"""LARS: SGD with momentum whose rate follows each matrix's norm (You et al. 2017, arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """As MAE's linear probe has it (facebookresearch/mae@efb2a80 util/lars.py): no rate of their own and no
    weight decay for parameters of one axis, no Nesterov momentum.

    Without weight decay it is timm's `Lars(always_adapt=True)` on matrices; that one adapts biases too.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.9,
        trust: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns what `closure` does, which computes the gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        change = parameter.grad
        if parameter.ndim > 1:
            change = change.add(parameter, alpha=group["weight_decay"])
            norm, change_norm = parameter.norm(), change.norm()
            # On the device: a comparison on the host would stall the step.
            ratio = group["trust"] * norm / change_norm
            change = change * torch.where((norm > 0) & (change_norm > 0), ratio, torch.ones_like(ratio))
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(change)
        parameter.sub_(buffer * group["lr"])
