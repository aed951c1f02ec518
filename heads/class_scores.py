"""Head of one class a row, of an image or a clip: its cross entropy and its probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.contract import Features, Head, SizeYX, Targets, check_output_sizes
from heads.errors import HeadError


class RowClassHead(Head):
    """What such heads share; `forward(features, valid_hw, generator)` gives the scores (N, num_classes)."""

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_cls": cross entropy}; `targets[i]["label"]` is int64 (), 0..num_classes - 1.

        Raises HeadError for a label out of range if labels are on the CPU; on a GPU the check would stall the
        step, and torch's own device assertion fails instead.
        """
        labels_N = torch.stack([target["label"] for target in targets])
        if labels_N.device.type == "cpu" and not 0 <= labels_N.min() <= labels_N.max() < self.num_classes:
            raise HeadError(f"labels {labels_N.tolist()[:20]}, expected 0..{self.num_classes - 1}")
        scores_NK = self(features, valid_hw, generator).float()
        return {"loss_cls": F.cross_entropy(scores_NK, labels_N.to(scores_NK.device, non_blocking=True))}

    def predict(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> list[Tensor]:
        """Class probabilities of each row, float32 (num_classes,); of `output_hw` only the length is
        used."""
        check_output_sizes(valid_hw, output_hw)
        with torch.no_grad():
            return list(self(features, valid_hw).float().softmax(-1))
