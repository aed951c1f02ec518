"""Mask2Former's transformer decoder with masked attention.

Mask2Former:modeling/transformer_decoder/mask2former_transformer_decoder.py. Dims: N images, Q queries, C
channels, L cells of one level, P predictions (one before the first layer and one after each), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.mask2former.pixel_decoder import DecodedPixels

ATTENTION_HEADS = 8
_FEEDFORWARD = 8  # times the width; the reference's 2048 for 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPredictions:
    """All predictions of a decoder. Masks are products, computed only where and at the size needed."""

    class_logits_PNQK: Tensor
    """Logits of K classes, then of "no object"."""
    embeddings_PNQC: Tensor
    """A query's mask logits are its embedding times the mask features."""
    mask_features_NCYX: Tensor


class MaskedDecoder(nn.Module):
    """Learned queries that attend to one level a layer, each within the mask it predicted last.

    Args:
        width: channels of the queries and of what they attend to, a multiple of 8.
        layers: decoder layers; the papers' (9+1) are 9 layers, their 1 is the prediction before the first.
        queries: number of queries, the most masks found in an image.
        num_classes: classes, without "no object".
        levels: levels of the pixel decoder.
    """

    def __init__(self, width: int, layers: int, queries: int, num_classes: int, levels: int) -> None:
        super().__init__()
        self.contents = nn.Embedding(queries, width)
        self.positions = nn.Embedding(queries, width)
        self.level_embeddings = nn.Embedding(levels, width)
        self.layers = nn.ModuleList(MaskedLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes + 1)
        self.mask_mlp = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, pixels: DecodedPixels) -> MaskPredictions:
        images = pixels.mask_features_NCYX.shape[0]
        values = [
            cells + level for cells, level in zip(pixels.cells, self.level_embeddings.weight, strict=True)
        ]
        keys = [value + codes for value, codes in zip(values, pixels.positions, strict=True)]
        gates = [_resized(pixels.mask_features_NCYX, size) for size in pixels.sizes]
        position_1QC = self.positions.weight[None]
        x_NQC = self.contents.weight.expand(images, -1, -1)
        normed = [self.norm(x_NQC)]
        embeddings = [self.mask_mlp(normed[0])]
        for index, layer in enumerate(self.layers):
            level = index % len(keys)
            seen_N1QL = seen_cells(embeddings[-1], gates[level])
            x_NQC = layer(x_NQC, position_1QC, keys[level], values[level], seen_N1QL)
            normed.append(self.norm(x_NQC))
            embeddings.append(self.mask_mlp(normed[-1]))
        return MaskPredictions(
            class_logits_PNQK=self.classifier(torch.stack(normed)),
            embeddings_PNQC=torch.stack(embeddings),
            mask_features_NCYX=pixels.mask_features_NCYX,
        )


class MaskedLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; a LayerNorm after each sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross = Attention(width)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width)
        self.self_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, _FEEDFORWARD * width)
        self.reduce = nn.Linear(_FEEDFORWARD * width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        for linear in (self.expand, self.reduce):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, x_NQC: Tensor, position_1QC: Tensor, key_NLC: Tensor, value_NLC: Tensor, seen_N1QL: Tensor
    ) -> Tensor:
        attended_NQC = self.cross(x_NQC + position_1QC, key_NLC, value_NLC, seen_N1QL)
        x_NQC = self.cross_norm(x_NQC + attended_NQC)
        placed_NQC = x_NQC + position_1QC
        x_NQC = self.self_norm(x_NQC + self.self_attention(placed_NQC, placed_NQC, x_NQC))
        y_NQC: Tensor = self.feedforward_norm(x_NQC + self.reduce(self.expand(x_NQC).relu_()))
        return y_NQC


class Attention(nn.Module):
    """Multi-head attention with the parameters of nn.MultiheadAttention, but no weight matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # One matrix for query, key and value, as the reference's: Xavier's range follows from its shape.
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        for linear in (self.inputs, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, query_NQC: Tensor, key_NLC: Tensor, value_NLC: Tensor, seen_N1QL: Tensor | None = None
    ) -> Tensor:
        """(N, Q, C). Keys are masked where `seen` (bool, for all heads) is false."""
        weights, biases = self.inputs.weight.chunk(3), self.inputs.bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).view(*x.shape[:2], ATTENTION_HEADS, -1).transpose(1, 2)
            for x, weight, bias in zip((query_NQC, key_NLC, value_NLC), weights, biases, strict=True)
        )
        read_NHQD = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_N1QL)
        y_NQC: Tensor = self.output(read_NHQD.transpose(1, 2).flatten(2))
        return y_NQC


@torch.no_grad()
def seen_cells(embeddings_NQC: Tensor, gate_NCL: Tensor) -> Tensor:
    """Cells (N, 1, Q, L) inside the masks that queries predict; a query whose mask is empty sees all.

    The reference resizes mask logits of the finest level to the layer's. Both are linear, so the features are
    resized instead, once for all queries and layers: attention needs no masks of the finest level.
    """
    seen_NQL = torch.bmm(embeddings_NQC, gate_NCL.to(embeddings_NQC.dtype)) >= 0
    return (seen_NQL | ~seen_NQL.any(-1, keepdim=True))[:, None]


@torch.no_grad()
def _resized(mask_features_NCYX: Tensor, size: tuple[int, int]) -> Tensor:
    small_NCyx = F.interpolate(mask_features_NCYX, size=size, mode="bilinear", align_corners=False)
    return small_NCyx.flatten(2)
