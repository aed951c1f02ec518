"""Mask2Former over a frozen pyramid: table 3 of Lin et al., NeurIPS 2022, in its four sizes.

m2f-pdX-tdY has X pixel decoder layers and Y masked decoder layers; the papers write (Y+1) for the predictions
they supervise, one before the first layer and one after each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.contract import Features, HeadPreset, SizeYX, Targets, check_choice, check_int, check_output_sizes
from heads.errors import HeadError
from heads.mask2former.losses import matched_losses
from heads.mask2former.masked_decoder import MaskedDecoder, MaskPredictions
from heads.mask2former.pixel_decoder import PIXEL_PRECISIONS, PixelDecoder
from heads.mask2former.point_sampling import full_precision, uniform_points
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.segmentation.base import SegmentationHead
from stores.pyramid import PyramidSpec

_SCORE_BYTES = 256 << 20  # 256 MiB: masks of some queries at output size


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask2FormerSettings:
    """Raises HeadError for a value out of range."""

    pixel_layers: int = 6
    """Deformable attention layers of the pixel decoder, 1..16."""
    decoder_layers: int = 9
    """Layers of the masked decoder, 1..32; one more prediction than these is supervised."""
    width: int = 256
    """Channels of all maps and queries, a multiple of 8; feed-forward layers have 4 and 8 times as many."""
    queries: int = 100
    """Queries, 1..1000; at least as many as an image can have classes."""
    points: int = 12544
    """Points at which a mask is compared, 16..65536; fewer are faster and noisier."""
    input_norm: str = "ln"
    """Norm per level over the channels: ln | ln_no_affine | none."""
    pixel_precision: str = "autocast"
    """Pixel decoder under autocast: autocast (matrix products in low precision) | fp32 (the reference's)."""

    def __post_init__(self) -> None:
        check_int("pixel_layers", self.pixel_layers, 1, 16)
        check_int("decoder_layers", self.decoder_layers, 1, 32)
        check_int("width", self.width, 8, 4096)
        if self.width % 8:
            raise HeadError(f"width is {self.width}, expected a multiple of 8")
        check_int("queries", self.queries, 1, 1000)
        check_int("points", self.points, 16, 65536)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_choice("pixel_precision", self.pixel_precision, PIXEL_PRECISIONS)


class Mask2Former(SegmentationHead):
    """Queries that each predict a class and a mask; a pixel's class score sums over them."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: Mask2FormerSettings) -> None:
        super().__init__(pyramid, num_classes)
        channels = [level.channels for level in pyramid]
        self.points = settings.points
        self.input_norms = build_input_norms(settings.input_norm, channels)
        self.pixel_decoder = PixelDecoder(
            channels, settings.width, settings.pixel_layers, settings.pixel_precision
        )
        self.masked_decoder = MaskedDecoder(
            settings.width, settings.decoder_layers, settings.queries, num_classes, len(channels) - 1
        )

    def forward(self, features: Features, valid_hw: Sequence[SizeYX]) -> MaskPredictions:
        """Every prediction, the last one last."""
        maps = self.select_maps(features, valid_hw)
        normed = [norm(x_NCYX) for norm, x_NCYX in zip(self.input_norms, maps, strict=True)]
        predictions: MaskPredictions = self.masked_decoder(self.pixel_decoder(normed))
        return predictions

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_class", "loss_mask", "loss_dice"}, each over all predictions.

        `targets[i]["labels"]` is uint8 (padded height, padded width), 255 = ignored: each class present is
        one mask, and ignored pixels are background to all of them. An image without any class adds nothing.
        """
        labels_NYX = self.stack_labels(features, targets)
        predictions = self(features, valid_hw)
        device = predictions.mask_features_NCYX.device
        return matched_losses(
            predictions,
            labels_NYX.to(device, non_blocking=True),
            self.points,
            uniform_points(generator, device),
        )

    def predict_each(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[Tensor]:
        """Class scores, float32 (num_classes, *output_hw[i]): over the queries, class probability x mask.

        As the reference: mask logits at the size of the padded image, their sigmoid cut to the valid part,
        then resized. Scores do not sum to 1 over the classes.
        """
        check_output_sizes(valid_hw, output_hw)
        stride_px = next(iter(self.pyramid)).stride_px
        with torch.no_grad():
            predictions = self(features, valid_hw)
        for row, (valid, size) in enumerate(zip(valid_hw, output_hw, strict=True)):
            with torch.no_grad(), torch.autocast(predictions.mask_features_NCYX.device.type, enabled=False):
                logits_QK = full_precision(predictions.class_logits_PNQK[-1, row])
                features_CYX = full_precision(predictions.mask_features_NCYX[row])
                embeddings_QC = full_precision(predictions.embeddings_PNQC[-1, row])
                yield _class_scores(
                    logits_QK.softmax(-1)[:, :-1], embeddings_QC, features_CYX, stride_px, valid, size
                )


def _class_scores(
    probabilities_QK: Tensor,
    embeddings_QC: Tensor,
    features_CYX: Tensor,
    stride_px: int,
    valid: SizeYX,
    size: SizeYX,
) -> Tensor:
    """(K, *size), some queries at a time."""
    padded = [cells * stride_px for cells in features_CYX.shape[1:]]
    scores_KP = features_CYX.new_zeros(probabilities_QK.shape[1], size[0] * size[1])
    pixels = max(padded[0] * padded[1], size[0] * size[1])
    queries = max(1, _SCORE_BYTES // (2 * 4 * pixels))
    for embeddings_qC, probabilities_qK in zip(
        torch.split(embeddings_QC, queries), torch.split(probabilities_QK, queries), strict=True
    ):
        masks_1qyx = torch.einsum("qc,cyx->qyx", embeddings_qC, features_CYX)[None]
        masks_1qYX = F.interpolate(masks_1qyx, size=padded, mode="bilinear", align_corners=False)
        seen_1qYX = masks_1qYX[..., : valid[0], : valid[1]].sigmoid()
        fine_1qYX = F.interpolate(seen_1qYX, size=tuple(size), mode="bilinear", align_corners=False)
        scores_KP.addmm_(probabilities_qK.t(), fine_1qYX[0].flatten(1))
    return scores_KP.view(-1, *size)


_LEVELS = ("p2", "p3", "p4", "p5")


def _preset(pixel_layers: int, decoder_layers: int) -> HeadPreset:
    settings = Mask2FormerSettings(pixel_layers=pixel_layers, decoder_layers=decoder_layers)
    return HeadPreset(task="segmentation", levels=_LEVELS, settings=settings, build=Mask2Former)


HEADS = {
    **{f"m2f-pd{pixel}-td{decoder}": _preset(pixel, decoder) for pixel in (1, 6) for decoder in (3, 9)},
    # Other names for the (9+1) heads, whose pixel decoder the papers vary.
    **{f"pixeldec{pixel}": _preset(pixel, 9) for pixel in (1, 6)},
}
