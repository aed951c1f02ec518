"""What `plan` reports of padding: in a Swin's windows, and among a plain ViT's patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from extract.backbones.levels import PLAIN
from extract.backbones.registry import BackboneCard
from extract.planning.padding_tokens import dividing_window, padding_shares
from stores.format.plan import Bin
from stores.format.row_table import RowTable


def padding_summary(card: BackboneCard, bins: Sequence[Bin]) -> dict[str, Any]:
    """As JSON values, stage by stage; nothing for a backbone without windows."""
    if not card.windows:
        return {}
    shares = padding_shares(card, bins)
    return {
        "window_rule": card.window_rule,
        "windows": [list(window) for window in card.windows[: len(shares)]],
        "padding_tokens": [round(share, 4) for share in shares],
        "window_without_padding": dividing_window(card, bins) if any(shares) else None,
    }


def patch_padding(card: BackboneCard, rows: RowTable) -> dict[str, Any]:
    """The share of a plain ViT's patches that show nothing of an image; nothing for another backbone."""
    if card.family != PLAIN:
        return {}
    shown, all_ = (
        (-(-sizes_R2.astype(np.int64) // card.multiple_px)).prod(1).sum()
        for sizes_R2 in (rows.valid_hw, rows.padded_hw)
    )
    return {"padding_patches": round(1 - float(shown / all_), 4)}


def padding_line(summary: Mapping[str, Any]) -> str:
    """The summary in words.

    >>> padding_line({"windows": [[12, 12], [6, 6]], "window_rule": "cover", "padding_tokens": [0.395, 0],
    ...     "window_without_padding": 7})
    '12x12, 6x6, rule cover; padding tokens by stage 40, 0 %; none with --model-args.window_size 7'
    """
    windows = ", ".join(f"{height}x{width}" for height, width in summary["windows"])
    shares = ", ".join(f"{100 * share:.0f}" for share in summary["padding_tokens"])
    line = f"{windows}, rule {summary['window_rule']}; padding tokens by stage {shares} %"
    if not any(summary["padding_tokens"]):
        return line
    better = summary["window_without_padding"]
    advice = "no window divides these maps" if better is None else f"none with {_window_flag(better)}"
    return f"{line}; {advice}"


def _window_flag(size: int | Sequence[int]) -> str:
    value = size if isinstance(size, int) else str(list(size)).replace(" ", "")
    return f"--model-args.window_size {value}"
