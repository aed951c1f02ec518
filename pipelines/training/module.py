"""A head as a LightningModule: training step, validation, optimiser, and what makes a run exact."""

from __future__ import annotations

import hashlib
import logging
import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from heads.contract import Head
from pipelines.config import TrainConfig
from pipelines.errors import WorkFailed
from pipelines.evaluation.store_measure import StoreMeasure
from pipelines.feed.ranks import largest_over_ranks, mean_over_ranks
from pipelines.feed.store_feed import Batch
from pipelines.machine.memory_format import channels_last
from pipelines.training.optimisation.optimizer import build_optimizer
from pipelines.training.optimisation.schedules import learning_rate
from stores.reading.reader import Store

logger = logging.getLogger(__name__)

_FEW = 0.1
"""Largest share of a run's steps by which the schedule may be off without a warning: epochs round up."""


class HeadModule(LightningModule):
    """Trains `head` as `config` says; knows nothing of where its features come from.

    It logs `loss` in each step (of this rank, before averaging) and, in Lightning's validation loop, the
    scores under their names in metrics.csv, such as mIoU, for ModelCheckpoint and EarlyStopping to monitor.
    """

    def __init__(self, head: Head, config: TrainConfig) -> None:
        super().__init__()
        self.head = channels_last(head)
        self.config = config
        self._bad_step: Tensor
        self.losses: dict[str, Tensor] = {}
        """The weighted terms of the last step on this rank, detached, on the device."""
        self._steps_before = 0
        self._begun_groups: list[int] | None = None
        self.register_buffer("_bad_step", torch.tensor(-1), persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(self._step_seed())
        terms = self.head.losses(batch.features, batch.targets, batch.valid_hw, generator)
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        self.losses = {name: term.detach() for name, term in terms.items()}
        self.losses["loss"] = loss.detach()
        self._note_divergence()
        # Not in the progress bar, which would wait for the device in each step.
        self.log("loss", self.losses["loss"], on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: Store, batch_idx: int) -> None:
        """Measures the head on a test store, as `evaluate` does. Every rank measures all of it.

        Raises LevelMissing or UsageError where the head cannot be measured on it.
        """
        if self.trainer.sanity_checking:  # it would measure the whole store before the first step
            return
        scores = StoreMeasure(batch, bf16=self.trainer.precision == "bf16-mixed")(self)
        known = {name: value for name, value in scores.items() if value is not None}
        self.log_dict(known, on_step=False, on_epoch=True, batch_size=1)

    def on_train_start(self) -> None:
        """Warns where the trainer's steps are not those that the learning rate is planned for."""
        steps, planned = self.trainer.estimated_stepping_batches, self.config.max_steps
        if abs(steps - planned) > _FEW * planned:
            logger.warning(
                "the trainer makes %s steps, but the learning rate is planned for max_steps=%d: give the "
                "module's TrainConfig as many", "endless" if math.isinf(steps) else steps, planned,
            )  # fmt: skip

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the learning rate, which follows from the step alone, like the draws of dropout.

        So a run resumed from any checkpoint continues as the killed one would have, with no state of a
        scheduler or a generator to save.
        """
        self._steps_before = self.global_step
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate_of(self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Frees the gradients: heads that take turns never hold theirs at the same time.

        Not between batches whose gradients are accumulated for one step.
        """
        if self.global_step > self._steps_before:
            self.trainer.optimizers[0].zero_grad(set_to_none=True)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of all gradients together, without waiting for the device.

        Lightning's own refuses a fused optimiser under bf16, for the sake of scaled gradients, which bf16
        does not have.
        """
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), gradient_clip_val)

    def mean_losses(self) -> dict[str, float]:
        """The last step's losses, averaged over the ranks, which all ask. Waits for the device."""
        means = mean_over_ranks(torch.stack([value.float() for value in self.losses.values()]))
        return dict(zip(self.losses, means.tolist(), strict=True))

    def _step_seed(self) -> int:
        return keyed_seed(self.config.seed, "step", self.global_step, self.global_rank)

    def rate_of(self, step: int) -> float:
        """The learning rate of optimiser step `step`, from 0."""
        config = self.config
        return learning_rate(step, config.optimizer.lr, config.schedule, config.max_steps)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes how many parameters had weight decay; Lightning calls it before `configure_optimizers`."""
        for state in checkpoint.get("optimizer_states") or []:
            self._begun_groups = [len(group["params"]) for group in state["param_groups"]]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.head, self.config.optimizer, self._begun_groups)

    def refuse_divergence(self) -> None:
        """Raises WorkFailed naming a step whose loss was not finite on some rank. Waits for the device.

        All ranks ask at the same steps, so that none is left waiting for those that stopped.
        """
        step = int(largest_over_ranks(self._bad_step))
        if step < 0:
            return
        raise WorkFailed(
            f"the loss of step {step} is not finite, at learning rate {self.rate_of(step):.3g}; the last "
            "checkpoint precedes it. Train with a lower --lr or more --warmup-steps"
        )

    def _note_divergence(self) -> None:
        # On the device: asking after every step whether the loss is finite would make the host wait for
        # the GPU.
        is_first = (self._bad_step < 0) & ~torch.isfinite(self.losses["loss"])
        self._bad_step = torch.where(is_first, self.global_step, self._bad_step)


def keyed_seed(*key: object) -> int:
    """A 63-bit seed from the digest of `key`: unlike seed + step, no two purposes share a stream.

    >>> keyed_seed(0, "step", 1) == keyed_seed(0, "step", 1) != keyed_seed(1, "step", 0)
    True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
