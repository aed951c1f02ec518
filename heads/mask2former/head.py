"""Mask2Former over a frozen pyramid: table 3 of Lin et al., NeurIPS 2022, in its four sizes.

m2f-pdX-tdY has X pixel decoder layers and Y masked decoder layers; the papers write (Y+1) for the predictions
they supervise, one before the first layer and one after each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
from heads.plain.blocks import last_block
from heads.plain.rescale import OfLastBlock, on_plain
from heads.segmentation.base import SegmentationHead
from heads.segmentation.row_bands import ScoreBands, joined, resized_rows, row_bands
from stores.pyramid import PyramidSpec

_SCORE_BYTES = 256 << 20  # 256 MiB: masks of some queries in pixels of the view, twice


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
        bands = self.predict_bands(features, valid_hw, output_hw)
        return (joined(each, self.num_classes, size) for each, size in zip(bands, output_hw, strict=True))

    def predict_bands(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[ScoreBands]:
        for masks, size in self._seen_masks(features, valid_hw, output_hw):
            yield ScoreBands(_score_bands(masks, size))

    def _seen_masks(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> Iterator[tuple[_SeenMasks, SizeYX]]:
        """The last prediction of each image, and its output size."""
        check_output_sizes(valid_hw, output_hw)
        stride_px = next(iter(self.pyramid)).stride_px
        with torch.no_grad():
            predictions = self(features, valid_hw)
        for row, (valid, (height, width)) in enumerate(zip(valid_hw, output_hw, strict=True)):
            with torch.no_grad(), torch.autocast(predictions.mask_features_NCYX.device.type, enabled=False):
                logits_QK = full_precision(predictions.class_logits_PNQK[-1, row])
                masks = _SeenMasks(
                    probabilities_QK=logits_QK.softmax(-1)[:, :-1],
                    embeddings_QC=full_precision(predictions.embeddings_PNQC[-1, row]),
                    features_CYX=full_precision(predictions.mask_features_NCYX[row]),
                    stride_px=stride_px,
                    valid=valid,
                )
            yield masks, (height, width)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _SeenMasks:
    """Queries of an image, and what makes their masks in pixels of its view."""

    probabilities_QK: Tensor
    embeddings_QC: Tensor
    features_CYX: Tensor
    stride_px: float
    valid: SizeYX

    def groups(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Class probabilities (q, K) and masks (q, Y, X) 0..1 of some queries at a time."""
        height, width = (int(cells * self.stride_px) for cells in self.features_CYX.shape[1:])
        queries = max(1, _SCORE_BYTES // (2 * 4 * height * width))
        for embeddings_qC, probabilities_qK in zip(
            torch.split(self.embeddings_QC, queries), torch.split(self.probabilities_QK, queries), strict=True
        ):
            masks_1qyx = torch.einsum("qc,cyx->qyx", embeddings_qC, self.features_CYX)[None]
            masks_1qYX = F.interpolate(masks_1qyx, size=(height, width), mode="bilinear", align_corners=False)
            yield probabilities_qK, masks_1qYX[0, :, : self.valid[0], : self.valid[1]].sigmoid()


def _score_bands(masks: _SeenMasks, size: SizeYX) -> Iterator[Tensor]:
    """Class scores (K, rows, X); holds the masks of all queries in pixels of the view."""
    device = masks.features_CYX.device
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        groups = list(masks.groups())
    for first, stop in row_bands(size, sum(masks.probabilities_QK.shape), device):
        # Entered for each band: a caller must not find itself inside of them.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            scores_KrX = _band_scores(groups, size, first, stop)
        yield scores_KrX


def _band_scores(groups: Sequence[tuple[Tensor, Tensor]], size: SizeYX, first: int, stop: int) -> Tensor:
    classes = groups[0][0].shape[1]
    scores_KP = groups[0][0].new_zeros(classes, (stop - first) * size[1])
    for probabilities_qK, seen_qYX in groups:
        fine_qrX = resized_rows(seen_qYX, size, first, stop)
        scores_KP.addmm_(probabilities_qK.t(), fine_qrX.flatten(1))
    return scores_KP.view(classes, stop - first, size[1])


_LEVELS = ("p2", "p3", "p4", "p5")


def _preset(pixel_layers: int, decoder_layers: int, **on_plain_vit: Any) -> HeadPreset:
    settings = Mask2FormerSettings(pixel_layers=pixel_layers, decoder_layers=decoder_layers)
    where = on_plain_vit or {"levels": _LEVELS, "build": Mask2Former}
    return HeadPreset(task="segmentation", settings=settings, **where)


_SIMPLE_FPN = {"levels": (), "choose": last_block, "build": on_plain(OfLastBlock, Mask2Former)}


HEADS = {
    **{f"m2f-pd{pixel}-td{decoder}": _preset(pixel, decoder) for pixel in (1, 6) for decoder in (3, 9)},
    **{
        f"simplefpn-m2f-pd{pixel}-td{decoder}": _preset(pixel, decoder, **_SIMPLE_FPN)
        for pixel in (1, 6)
        for decoder in (3, 9)
    },
    # Other names for the (9+1) heads, whose pixel decoder the papers vary.
    **{f"pixeldec{pixel}": _preset(pixel, 9) for pixel in (1, 6)},
}
