"""UPerNet with its own top-down merge or another neck (mmseg:models/decode_heads/{uper_head,fcn_head}.py).

The papers name "UPerNet + BiFPN xN" without drawing it. Here the pooled top level and UPerNet's laterals
are kept, and the BiFPN (four levels, half the width, no P6) replaces the top-down sum and the 3x3
convolutions after it. Any other neck of heads/necks replaces them in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.contract import (
    Features,
    HeadPreset,
    SizeYX,
    Targets,
    check_bool,
    check_choice,
    check_int,
    check_probability,
    valid_cells,
)
from heads.errors import HeadError
from heads.necks.channel_dropout import drop_channels
from heads.necks.contract import NECK_NORMS
from heads.necks.conv_block import CONV_NORMS, ConvBlock
from heads.necks.former_settings import translate_neck_settings
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.necks.table import build_neck, check_neck
from heads.plain.blocks import four_blocks, last_block
from heads.plain.rescale import OfFourBlocks, OfLastBlock, RescaledLevels, on_plain
from heads.segmentation.base import PixelClassifier, build_classifier
from heads.segmentation.pixel_loss import pixel_cross_entropy
from heads.segmentation.pyramid_pooling import PyramidPooling
from stores.pyramid import PyramidSpec

_OWN_NECK = "fpn"
_AUXILIARY_WEIGHT = 0.4  # mmseg:configs/_base_/models/upernet_swin.py


@dataclass(frozen=True, kw_only=True, slots=True)
class UPerNetSettings:
    """Raises HeadError for a value out of range."""

    neck: str = "fpn"
    """fpn (UPerNet's own top-down merge) | bifpn | fpn-res, or another of heads/necks."""
    neck_depth: int = 1
    """Layers of a BiFPN, residual blocks on each level of fpn-res, 1..16; an FPN has 1."""
    width: int = 512
    """Channels of the maps, even, 8 or more. Half of them in other necks than fpn and in the
    auxiliary head."""
    input_norm: str = "ln"
    """Norm per level over the channels: ln | ln_no_affine | none."""
    norm: str = "bn"
    """Norm of UPerNet's own convolutions: bn | gn | none. BatchNorm needs 16 images or more a step: use gn
    with fewer, SyncBatchNorm over several processes (torch.nn.SyncBatchNorm, Lightning's sync_batchnorm)."""
    neck_norm: str = "gn"
    """Norm of the convolutions of other necks than fpn: gn | none."""
    dropout: float = 0.1
    """Probability of dropping a channel before the classifier, 0..0.9."""
    auxiliary: bool = False
    """Also train the recipe's FCN head on p4 (loss x 0.4). On frozen features it cannot help the main head;
    it serves comparisons."""

    def __post_init__(self) -> None:
        check_neck(self.neck, self.neck_depth)
        check_int("width", self.width, 8, 4096)
        if self.width % 2:
            raise HeadError(f"width is {self.width}, expected an even number")
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_choice("norm", self.norm, CONV_NORMS)
        check_choice("neck_norm", self.neck_norm, NECK_NORMS)
        check_probability("dropout", self.dropout)
        check_bool("auxiliary", self.auxiliary)


class UPerNet(PixelClassifier):
    """Pyramid pooling on the coarsest level, a merge of all levels, one 3x3 over them and a classifier.

    The pyramid has three levels or more. `auxiliary` is None unless the settings ask for it.
    """

    decays_norms = True  # mmseg

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: UPerNetSettings) -> None:
        super().__init__(pyramid, num_classes)
        *finer, top = (level.channels for level in pyramid)
        self.norm = settings.norm
        self.dropout = settings.dropout
        self.input_norms = build_input_norms(settings.input_norm, (*finer, top))
        self.pooling = PyramidPooling(top, settings.width, settings.norm)
        self.neck_name = settings.neck
        width = settings.width if settings.neck == _OWN_NECK else settings.width // 2
        self.laterals = nn.ModuleList(ConvBlock(channels, width, 1, settings.norm) for channels in finer)
        self.merge: nn.Module
        if settings.neck == _OWN_NECK:
            self.merge = TopDown(len(finer), width, settings.norm)
        else:
            self.merge = build_neck(
                settings.neck,
                (*[width] * len(finer), settings.width),
                width,
                depth=settings.neck_depth,
                norm=settings.neck_norm,
            )
        self.bottleneck = ConvBlock(len(pyramid) * width, settings.width, 3, settings.norm)
        self.classifier = build_classifier(settings.width, num_classes)
        self.auxiliary = (
            FCN(finer[-1], settings.width // 2, num_classes, settings) if settings.auxiliary else None
        )

    @property
    def necks(self) -> Mapping[str, nn.Module]:
        return {} if self.neck_name == _OWN_NECK else {self.neck_name: self.merge}

    def forward(
        self, features: Features, valid_hw: Sequence[SizeYX], generator: torch.Generator | None = None
    ) -> Tensor:
        maps = self._normed_maps(features, valid_hw)
        return self._classify(maps, valid_hw, generator)

    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """{"loss_seg": ...} and, with the auxiliary head, "loss_aux"; targets as PixelClassifier's."""
        labels_NYX = self.stack_labels(features, targets)
        maps = self._normed_maps(features, valid_hw)
        losses = {"loss_seg": pixel_cross_entropy(self._classify(maps, valid_hw, generator), labels_NYX)}
        if self.auxiliary is not None:
            scores_NKyx = self.auxiliary(maps[-2], generator)
            losses["loss_aux"] = _AUXILIARY_WEIGHT * pixel_cross_entropy(scores_NKyx, labels_NYX)
        return losses

    def _normed_maps(self, features: Features, valid_hw: Sequence[SizeYX]) -> list[Tensor]:
        maps = self.select_maps(features, valid_hw)
        if self.training and self.norm == "bn" and len(valid_hw) < 2:
            raise HeadError(
                "norm=bn cannot train on a batch of one image (it pools to a single cell): use norm=gn"
            )
        return [norm(x_NCYX) for norm, x_NCYX in zip(self.input_norms, maps, strict=True)]

    def _classify(
        self, maps: Sequence[Tensor], valid_hw: Sequence[SizeYX], generator: torch.Generator | None
    ) -> Tensor:
        *_, top = self.pyramid
        merged = [lateral(x_NCYX) for lateral, x_NCYX in zip(self.laterals, maps[:-1], strict=True)]
        merged = self.merge([*merged, self.pooling(maps[-1], valid_cells(top, valid_hw))])
        grid = merged[0].shape[2:]
        x_NCYX = self.bottleneck(
            torch.cat([merged[0], *(_resize(x_NCyx, grid) for x_NCyx in merged[1:])], dim=1)
        )
        if self.training:
            x_NCYX = drop_channels(x_NCYX, self.dropout, generator)
        scores_NKYX: Tensor = self.classifier(x_NCYX)
        return scores_NKYX


class TopDown(nn.Module):
    """UPerNet's own merge: bilinear top-down sum, then a 3x3 block on every level but the coarsest."""

    def __init__(self, finer_levels: int, width: int, norm: str) -> None:
        super().__init__()
        self.outputs = nn.ModuleList(ConvBlock(width, width, 3, norm) for _ in range(finer_levels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        summed = list(maps)
        for fine in range(len(summed) - 2, -1, -1):
            summed[fine] = summed[fine] + _resize(summed[fine + 1], summed[fine].shape[2:])
        return [*(block(x_NCYX) for block, x_NCYX in zip(self.outputs, summed[:-1], strict=True)), summed[-1]]


class FCN(nn.Module):
    """One 3x3 block and a classifier: the auxiliary head of the recipe."""

    def __init__(self, inputs: int, width: int, num_classes: int, settings: UPerNetSettings) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.conv = ConvBlock(inputs, width, 3, settings.norm)
        self.classifier = build_classifier(width, num_classes)

    def forward(self, x_NCYX: Tensor, generator: torch.Generator | None = None) -> Tensor:
        x_NCYX = self.conv(x_NCYX)
        if self.training:
            x_NCYX = drop_channels(x_NCYX, self.dropout, generator)
        scores_NKYX: Tensor = self.classifier(x_NCYX)
        return scores_NKYX


def _resize(x_NCyx: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x_NCyx, size=tuple(size), mode="bilinear", align_corners=False)


_LEVELS = ("p2", "p3", "p4", "p5")


def _preset(neck: str, depth: int = 1) -> HeadPreset:
    return HeadPreset(
        task="segmentation",
        levels=_LEVELS,
        settings=UPerNetSettings(neck=neck, neck_depth=depth),
        build=UPerNet,
        translate=translate_neck_settings,
    )


def _plain(choose: Any, rescale: type[RescaledLevels]) -> HeadPreset:
    settings = UPerNetSettings()
    return HeadPreset(
        task="segmentation", levels=(), settings=settings, build=on_plain(rescale, UPerNet), choose=choose
    )


HEADS = {
    "fpn": _preset("fpn"),
    "simplefpn": _plain(last_block, OfLastBlock),
    "feature2pyramid": _plain(four_blocks, OfFourBlocks),
    **{f"bifpn{layers}": _preset("bifpn", layers) for layers in range(1, 10)},
}
