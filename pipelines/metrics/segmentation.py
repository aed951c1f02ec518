"""Segmentation metrics from a confusion matrix: mIoU, pixel accuracy, IoU per class."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.segmentation.pixel_loss import IGNORE_LABEL


class Confusion:
    """Counts of (true class, predicted class) over a whole data set, as int64 on the predictions' device.

    mIoU is the mean over classes of summed intersections over summed unions, at original resolution
    (mmseg core/evaluation/metrics.py `mean_iou`); a class that occurs neither in the truth nor in a
    prediction has no IoU and is left out of the mean.

    >>> counts = Confusion(3)
    >>> counts.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 255]], dtype=torch.uint8))
    >>> counts.iou()
    [1.0, 1.0, None]
    >>> counts.miou(), counts.pixel_accuracy()
    (1.0, 1.0)
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

    def iou(self) -> list[float | None]:
        """The IoU of each class, None where the class occurs nowhere."""
        hits, unions = self.intersections(), self.unions()
        return [hit / union if union else None for hit, union in zip(hits, unions, strict=True)]

    def intersections(self) -> list[int]:
        """Pixels of each class predicted as it."""
        return self.counts_KK.diagonal().tolist()

    def unions(self) -> list[int]:
        """Pixels of each class, or predicted as it."""
        return (self.counts_KK.sum(0) + self.counts_KK.sum(1) - self.counts_KK.diagonal()).tolist()

    def miou(self) -> float | None:
        """The mean IoU of the classes that occur; None where nothing was counted."""
        present = [value for value in self.iou() if value is not None]
        return sum(present) / len(present) if present else None

    def pixel_accuracy(self) -> float | None:
        """The share of counted pixels that are right; None where nothing was counted."""
        total = int(self.counts_KK.sum())
        return int(self.counts_KK.trace()) / total if total else None
