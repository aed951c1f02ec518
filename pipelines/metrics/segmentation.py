"""The confusion matrix of segmentation, counted image by image; `pixel_scores` makes scores of it."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.segmentation.pixel_loss import IGNORE_LABEL
from pipelines.metrics.pixel_scores import Counts


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
        self.counts_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, predicted_HW: Tensor, labels_HW: Tensor) -> None:
        """Adds one image.

        Args:
            predicted_HW: integer class of each pixel, 0..num_classes-1.
            labels_HW: uint8 truth of the same size; 255 is not counted.

        Raises ValueError where the sizes differ or a label names no class.
        """
        if predicted_HW.shape != labels_HW.shape:
            raise ValueError(
                f"prediction is {tuple(predicted_HW.shape)} px, labels are {tuple(labels_HW.shape)} px; "
                "expected equal sizes"
            )
        counted = labels_HW != IGNORE_LABEL
        truth = labels_HW[counted].to(torch.int64)
        if truth.numel() and int(truth.max()) >= self.num_classes:
            raise ValueError(f"label {int(truth.max())}, expected 0..{self.num_classes - 1} or 255 (ignored)")
        cells = truth * self.num_classes + predicted_HW[counted].to(torch.int64)
        self.counts_KK += torch.bincount(cells, minlength=self.num_classes**2).view_as(self.counts_KK)

    def on_host(self) -> Counts:
        """int64 (K, K) for the functions of `pixel_scores`."""
        found: Counts = self.counts_KK.cpu().numpy()
        return found
