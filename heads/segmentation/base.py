"""Base of segmentation heads: label maps in, class scores at output size out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from heads.contract import Features, Head, SizeYX, Targets, check_output_sizes
from heads.errors import HeadError
from heads.segmentation.pixel_loss import pixel_cross_entropy
from heads.segmentation.row_bands import (
    LabelMap,
    ScoreBands,
    best_class,
    joined,
    label_map,
    resized_rows,
    row_bands,
)


class SegmentationHead(Head):
    """A head that is trained on label maps and predicts a score per class for every output pixel."""

    task = "segmentation"

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("labels",)

    def predict(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> list[Tensor]:
        """Class scores, float32 (num_classes, *output_hw[i]), 0 or more: the largest is the predicted class;
        scores of several views are averaged."""
        return list(self.predict_each(features, valid_hw, output_hw))

    @abstractmethod
    def predict_each(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[Tensor]:
        """As `predict`, one image at a time: at 150 classes a 4-megapixel image alone takes 2.4 GB."""

    def predict_bands(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[ScoreBands]:
        """As `predict_each`, each image as bands of rows.

        A head that does not override it holds the scores of a whole image.
        """
        return (
            ScoreBands(iter((scores_KYX,))) for scores_KYX in self.predict_each(features, valid_hw, output_hw)
        )

    def predict_labels(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[LabelMap]:
        """The class of the largest score at each pixel of each image; holds the scores of a band of rows."""
        for size, bands in zip(output_hw, self.predict_bands(features, valid_hw, output_hw), strict=True):
            with torch.no_grad():
                found = label_map(map(_best_class, bands), size)
            yield found

    def view_scores(self, features: Features, valid_hw: Sequence[SizeYX]) -> Tensor:
        """Scores of one image in pixels of its view, float32 (num_classes, *valid_hw[0]): what is averaged
        where views overlap, and becomes the prediction by `finished`."""
        with torch.no_grad():
            return self.predict(features, valid_hw, valid_hw)[0]

    def finished(self, scores_KYX: Tensor) -> Tensor:
        """Averaged `view_scores` as `predict` gives them."""
        return scores_KYX

    def stack_labels(self, features: Features, targets: Targets) -> Tensor:
        """uint8 (N, y, x). Raises HeadError if a label map is not as large as the padded image."""
        finest = next(iter(self.source))
        grid = tuple(features[finest.name].shape[2:]) if finest.name in features else None
        for target in targets:
            labels_YX = target["labels"]
            height_px, width_px = labels_YX.shape
            if grid is not None and (finest.cells(height_px), finest.cells(width_px)) != grid:
                raise HeadError(
                    f"label map of {height_px}x{width_px} px, expected the size of the padded image: level "
                    f"{finest.name} has {grid[0]}x{grid[1]} cells of {finest.stride_px} px"
                )
        return torch.stack([target["labels"] for target in targets])


class PixelClassifier(SegmentationHead):
    """A head whose `forward` gives class scores (N, classes, y, x) on the grid of its finest level.

    Trained by cross entropy at label resolution; predictions are probabilities.
    """

    @abstractmethod
    def forward(
        self, features: Features, valid_hw: Sequence[SizeYX], generator: torch.Generator | None = None
    ) -> Tensor:
        """Class scores (N, num_classes, y, x) on the finest level's grid."""

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_seg": ...}; `targets[i]["labels"]` is uint8 (padded height, padded width), 255 = ignored."""
        labels_NYX = self.stack_labels(features, targets)
        return {"loss_seg": pixel_cross_entropy(self(features, valid_hw, generator), labels_NYX)}

    def view_scores(self, features: Features, valid_hw: Sequence[SizeYX]) -> Tensor:
        """Logits, as mmseg averages them."""
        ((seen_Kyx, size),) = self._seen_logits(features, valid_hw, valid_hw)
        with torch.no_grad():
            return resized_rows(seen_Kyx, size, 0, size[0])

    def finished(self, scores_KYX: Tensor) -> Tensor:
        return scores_KYX.softmax(0)

    def predict_each(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[Tensor]:
        """Class probabilities, float32 (num_classes, *output_hw[i])."""
        bands = self.predict_bands(features, valid_hw, output_hw)
        return (joined(each, self.num_classes, size) for each, size in zip(bands, output_hw, strict=True))

    def predict_bands(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[ScoreBands]:
        for seen_Kyx, size in self._seen_logits(features, valid_hw, output_hw):
            yield ScoreBands(_logit_bands(seen_Kyx, size), _softmax_in_place)

    def _seen_logits(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[tuple[Tensor, SizeYX]]:
        """Of each image the class scores (K, y, x) of the part that is image, and its output size."""
        check_output_sizes(valid_hw, output_hw)
        finest = next(iter(self.pyramid))
        with torch.no_grad():
            logits_NKyx = self(features, valid_hw)
        for row, ((valid_y, valid_x), (height, width)) in enumerate(zip(valid_hw, output_hw, strict=True)):
            # Padding is cut off before the resize: a valid size that is no multiple of the stride keeps its
            # last partial cell, as the same image without padding has it.
            seen_Kyx = logits_NKyx[row, :, : finest.cells(valid_y), : finest.cells(valid_x)].float()
            yield seen_Kyx, (height, width)


def build_classifier(inputs: int, num_classes: int) -> nn.Conv2d:
    """1x1 convolution to class scores, N(0, 0.01) as mmseg's conv_seg."""
    conv = nn.Conv2d(inputs, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _logit_bands(seen_Kyx: Tensor, size: SizeYX) -> Iterator[Tensor]:
    for first, stop in row_bands(size, len(seen_Kyx), seen_Kyx.device):
        with torch.no_grad():
            logits_KrX = resized_rows(seen_Kyx, size, first, stop)
        yield logits_KrX


def _best_class(scores_KrX: Tensor) -> tuple[Tensor, Tensor]:
    """The best class and its share of the scores: those of mask heads are no probabilities."""
    labels_rX, best_rX = best_class(scores_KrX)
    return labels_rX, best_rX.div_(scores_KrX.sum(0))


def _softmax_in_place(scores_KYX: Tensor) -> Tensor:
    """Softmax over the first axis, without a second map of this size."""
    with torch.no_grad():
        scores_KYX.sub_(scores_KYX.amax(0)).exp_()
        return scores_KYX.div_(scores_KYX.sum(0))
