"""Video classification heads: the mean of a clip's features, optionally after attention blocks.

The heads of the video rows of Lin et al., NeurIPS 2022 (tables 4, 5, 7 and 8); what the paper leaves open
about its blocks is decided in heads/video/blocks.py. Letters in tensor names: N clips, C channels, T frames,
y x cells, G groups of tokens that attend to each other, L tokens of a group, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.class_scores import RowClassHead
from heads.contract import (
    Features,
    HeadPreset,
    SizeYX,
    check_bool,
    check_choice,
    check_int,
    check_probability,
    valid_cells,
)
from heads.last_map import require_last_map
from heads.necks.channel_dropout import drop_channels
from heads.necks.input_norm import INPUT_NORMS, build_input_norms
from heads.video.blocks import VideoBlock
from stores.pyramid import PyramidSpec

SPANS = ("temporal", "global")
NAMED_BLOCKS = range(1, 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanSettings:
    """Raises HeadError for a value out of range."""

    input_norm: str = "none"
    """Norm over the channels of each cell: none (levels such as p5n have the backbone's own) | ln |
    ln_no_affine."""
    dropout: float = 0.5
    """Probability of dropping a channel of the mean before the classifier, 0..0.9."""

    def __post_init__(self) -> None:
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_probability("dropout", self.dropout)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSettings:
    """Raises HeadError for a value out of range."""

    span: str
    """What a token attends to: temporal (its cell in every frame) | global (every cell of every frame)."""
    blocks: int
    """Transformer blocks before the mean, 1..48."""
    position_bias: bool = True
    """Position bias of the blocks; without it a head gives a clip and its reversal the same scores."""
    drop_path: float = 0.2
    """Probability of leaving out a block's branch for a clip, 0..0.9; the same for every block."""
    input_norm: str = "none"
    """Norm over the channels of each cell: none (levels such as p5n have the backbone's own) | ln |
    ln_no_affine."""
    dropout: float = 0.5
    """Probability of dropping a channel of the mean before the classifier, 0..0.9."""

    def __post_init__(self) -> None:
        check_choice("span", self.span, SPANS)
        check_int("blocks", self.blocks, 1, 48)
        check_bool("position_bias", self.position_bias)
        check_probability("drop_path", self.drop_path)
        check_choice("input_norm", self.input_norm, INPUT_NORMS)
        check_probability("dropout", self.dropout)


class ClipHead(RowClassHead):
    """A head that predicts class probabilities of clips.

    Features are (N, C, T, y, x). Clips of one batch may be of several valid sizes; they then go one by one.
    """

    task = "video"
    map_axes = ("t", "y", "x")

    def __init__(self, pyramid: PyramidSpec, num_classes: int, input_norm: str, dropout: float) -> None:
        super().__init__(pyramid, num_classes)
        (level,) = pyramid
        self.dropout = dropout
        (self.input_norm,) = build_input_norms(input_norm, [level.channels])
        self.classifier = nn.Linear(level.channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)  # mmaction2 models/heads/i3d_head.py, init_std
        nn.init.zeros_(self.classifier.bias)

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("label",)

    def forward(
        self, features: Features, valid_hw: Sequence[SizeYX], generator: torch.Generator | None = None
    ) -> Tensor:
        """Class scores (N, num_classes)."""
        (x_NCTyx,) = self.select_maps(features, valid_hw)
        (level,) = self.pyramid
        cells = valid_cells(level, valid_hw)
        if isinstance(cells, Tensor):  # torch.export, of clips without padding
            return self._scores(x_NCTyx, generator)
        if len(set(cells)) == 1:
            return self._scores(x_NCTyx[..., : cells[0][0], : cells[0][1]], generator)
        rows = enumerate(cells)
        return torch.cat([self._scores(x_NCTyx[i : i + 1, ..., :y, :x], generator) for i, (y, x) in rows])

    def _scores(self, x_NCTyx: Tensor, generator: torch.Generator | None) -> Tensor:
        mean_NC = self.mean(self.input_norm(x_NCTyx), generator)
        if self.training:
            mean_NC = drop_channels(mean_NC[..., None, None], self.dropout, generator)[..., 0, 0]
        scores_NK: Tensor = self.classifier(mean_NC)
        return scores_NK

    @abstractmethod
    def mean(self, x_NCTyx: Tensor, generator: torch.Generator | None) -> Tensor:
        """(N, C): the classifier's input for each clip, before dropout."""


class MeanHead(ClipHead):
    """The linear head: the mean over frames and cells, dropout, one linear layer."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: MeanSettings) -> None:
        super().__init__(pyramid, num_classes, settings.input_norm, settings.dropout)

    def mean(self, x_NCTyx: Tensor, generator: torch.Generator | None) -> Tensor:
        return x_NCTyx.mean((2, 3, 4), dtype=torch.float32)


class BlockHead(ClipHead):
    """Attention blocks over time or the whole clip, then the linear head, to which it is equal at first."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int, settings: BlockSettings) -> None:
        super().__init__(pyramid, num_classes, settings.input_norm, settings.dropout)
        (level,) = pyramid
        self.span = settings.span
        self.blocks = nn.ModuleList(
            VideoBlock(
                level.channels,
                1 if settings.span == "temporal" else 3,
                position_bias=settings.position_bias,
                drop_path=settings.drop_path,
            )
            for _ in range(settings.blocks)
        )

    def mean(self, x_NCTyx: Tensor, generator: torch.Generator | None) -> Tensor:
        x_NTyxC = x_NCTyx.movedim(1, -1)
        extents: tuple[int, ...] = tuple(x_NTyxC.shape[1:4])
        if self.span == "temporal":
            x_NGLC, extents = x_NTyxC.flatten(2, 3).transpose(1, 2).contiguous(), extents[:1]
        else:
            x_NGLC = x_NTyxC.flatten(1, 3)[:, None]
        for block in self.blocks:
            x_NGLC = block(x_NGLC, extents, generator)
        return x_NGLC.mean((1, 2), dtype=torch.float32)


HEADS = {
    "linear": HeadPreset(
        task="video", levels=(), choose=require_last_map, settings=MeanSettings(), build=MeanHead
    ),
    **{
        f"{span}{blocks}": HeadPreset(
            task="video",
            levels=(),
            choose=require_last_map,
            settings=BlockSettings(span=span, blocks=blocks),
            build=BlockHead,
        )
        for span in SPANS
        for blocks in NAMED_BLOCKS
    },
}
