"""Multiply-adds of a backbone for one row, counted on the meta device; and how many tokens it makes of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from extract.backbones.levels import PLAIN
from extract.backbones.registry import BackboneCard
from extract.swin.timm_import import without_dynamo
from extract.swin.timm_swin import meta_trunk
from extract.swin.window_rule import WindowRule
from stores.format.plan import Bin

logger = logging.getLogger(__name__)

_SWIN_PATCH_PX = 4


def backbone_costs(card: BackboneCard, bins: Sequence[Bin], frames: int | None = None) -> dict[str, Any]:
    """What the forward pass of a row of the most frequent size costs, as JSON values.

    Products, convolutions and attention up to the last stage or block that is stored are counted, by torch's
    FlopCounterMode; norms and the shift of windows are not. Padded cells count: they are computed.

    Args:
        frames: of a clip, each of which goes through the backbone.

    Returns:
        `input_px`: height and width of the padded view. `tokens`: patches of a Transformer, None for another
        network. `multiply_adds`: None where the model cannot be counted without its weights.
    """
    b = max(bins, key=lambda each: each.rows)
    size, images = [b.height_px, b.width_px], frames or 1
    patch_px = card.multiple_px if card.family == PLAIN else _SWIN_PATCH_PX if card.is_swin else None
    tokens = None if patch_px is None else images * -(-size[0] // patch_px) * -(-size[1] // patch_px)
    found: dict[str, Any] = {"input_px": size, "tokens": tokens, "multiply_adds": None}
    last = max(level.stage for level in card.pyramid)
    multiple = card.multiple_px
    height, width = (-(-side // multiple) * multiple for side in size)
    args = json.dumps(card.constructor_args, sort_keys=True)
    counted = _multiply_adds(card.timm_id, args, card.window_rule, last, (height, width))
    return found if counted is None else {**found, "multiply_adds": images * counted}


@cache
def _multiply_adds(timm_id: str, args: str, rule: WindowRule, last: int, hw: tuple[int, int]) -> int | None:
    """Of one image up to the stage or block `last`; None where it cannot be counted."""
    trunk: Any = meta_trunk(timm_id, json.loads(args), window_rule=rule).eval()
    x = torch.empty(1, 3, *hw, device="meta")
    try:
        with without_dynamo(), FlopCounterMode(display=False) as counter, torch.no_grad():
            trunk.forward_intermediates(x, indices=[last - 1], stop_early=True, intermediates_only=True)
    except (RuntimeError, ValueError, AssertionError, LookupError, NotImplementedError) as error:
        logger.debug("%s: multiply-adds were not counted: %s", timm_id, error)
        return None
    return int(counter.get_total_flops() // 2)
