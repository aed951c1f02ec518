"""The confusion matrix of segmentation, counted image by image; `pixel_scores` makes scores of it."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.segmentation.pixel_loss import IGNORE_LABEL
from pipelines.metrics.pixel_scores import Counts

_LABELS = 256
"""Values of a uint8."""


class Confusion:
    """Counts of (true class, predicted class) over a whole data set, as int64 on the predictions' device.

    >>> from pipelines.metrics.pixel_scores import class_iou
    >>> counts = Confusion(3)
    >>> counts.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 255]], dtype=torch.uint8))
    >>> class_iou(counts.on_host())
    [1.0, 1.0, None]
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        # A line for each value that a label can have: to leave out ignored pixels would take masks, whose
        # sizes the host has to wait for.
        self._counts_LK = torch.zeros(_LABELS, num_classes, dtype=torch.int64, device=device)

    @property
    def counts_KK(self) -> Tensor:
        """int64 (K, K): pixels by (true class, predicted class)."""
        return self._counts_LK[: self.num_classes]

    def update(self, predicted_HW: Tensor, labels_HW: Tensor) -> None:
        """Adds one image; does not wait for a GPU.

        Args:
            predicted_HW: integer class of each pixel, 0..num_classes-1.
            labels_HW: uint8 truth of the same size; 255 is not counted.

        Raises ValueError where the sizes differ or a label names no class; of labels on a GPU only `on_host`
        can say the latter.
        """
        if predicted_HW.shape != labels_HW.shape:
            raise ValueError(
                f"prediction is {tuple(predicted_HW.shape)} px, labels are {tuple(labels_HW.shape)} px; "
                "expected equal sizes"
            )
        cells_P = (labels_HW.long() * self.num_classes).add_(predicted_HW.long()).flatten()
        cells_P.clamp_(max=self._counts_LK.numel() - 1)  # any prediction may stand where the label is 255
        if cells_P.is_cpu:
            found_LK = torch.bincount(cells_P, minlength=self._counts_LK.numel())
            self._counts_LK += found_LK.view_as(self._counts_LK)
            self._refuse_others()
        else:  # bincount would wait for the largest cell
            self._counts_LK.view(-1).scatter_add_(0, cells_P, torch.ones_like(cells_P))

    def on_host(self) -> Counts:
        """int64 (K, K) for the functions of `pixel_scores`.

        Raises ValueError where a label names no class.
        """
        self._refuse_others()
        found: Counts = self.counts_KK.cpu().numpy()
        return found

    def _refuse_others(self) -> None:
        pixels_L = self._counts_LK[self.num_classes : IGNORE_LABEL].sum(1)
        if pixels_L.any():
            label = self.num_classes + int(pixels_L.nonzero()[-1])
            raise ValueError(f"label {label}, expected 0..{self.num_classes - 1} or {IGNORE_LABEL} (ignored)")
