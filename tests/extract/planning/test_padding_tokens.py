"""Shares of padding tokens and windows without any, from counts by hand."""

from __future__ import annotations

import pytest

from extract.backbones.loading import backbone_card
from extract.planning.padding_tokens import dividing_window, padding_shares
from stores.format.plan import Bin

SHARES = [
    # Kinetics-400 at 224 px: maps of 56, 28, 14, 7 in windows of 12, 12, 12, 6
    ("swinv2-b", "cover", 224, (13, 40, 66, 66), 7),
    ("swinv2-b", "partition", 224, (13, 40, 66, 66), 7),
    ("swinv2-b", "cover", 192, (0, 0, 0, 0), 12),
    # windows of 40, 40, 40, 20 on maps of 64, 32, 16, 8
    ("swinv2-g", "partition", 256, (36, 36, 84, 84), [32, 32, 16, 8]),
    ("swinv2-g", "cover", 256, (36, 0, 0, 0), 32),
    ("swinv2-b", "partition", 1024, (6, 6, 21, 21), 8),
    ("swinv2-b", "partition", 512, (6, 21, 21, 21), 8),
    ("swinv2-b", "partition", 640, (9, 9, 31, 31), 10),
]


def of_squares(side_px: int) -> list[Bin]:
    return [Bin(height_px=side_px, width_px=side_px, rows=8, shard_rows=1)]


@pytest.mark.parametrize(("model", "rule", "px", "percent", "window"), SHARES)
def test_shares_of_square_views(
    model: str, rule: str, px: int, percent: tuple[int, ...], window: int | list[int]
) -> None:
    card = backbone_card(model, window_rule=rule)
    assert tuple(round(100 * share) for share in padding_shares(card, of_squares(px))) == percent
    assert dividing_window(card, of_squares(px)) == window
    whole = backbone_card(model, {"window_size": window}, window_rule=rule)
    assert not any(padding_shares(whole, of_squares(px)))


def test_bins_count_by_their_rows() -> None:
    """Stage 1 in windows of 8: 16x16 cells fill theirs, 17x16 take a half of 32x16 more, nearly."""
    card = backbone_card("swinv2-t", levels=["p2"])
    bins = [
        Bin(height_px=64, width_px=64, rows=3, shard_rows=1),
        Bin(height_px=68, width_px=64, rows=1, shard_rows=1),
    ]
    real, padded = 3 * 16 * 16 + 17 * 16, 3 * 16 * 16 + 24 * 16
    assert padding_shares(card, bins) == (1 - real / padded,)


def test_maps_that_no_window_divides() -> None:
    bins = [Bin(height_px=side, width_px=side, rows=1, shard_rows=1) for side in (224, 416)]
    assert dividing_window(backbone_card("swinv2-b"), bins) is None


def test_other_backbones_have_no_windows() -> None:
    assert padding_shares(backbone_card("timm:resnet18"), of_squares(224)) == ()
