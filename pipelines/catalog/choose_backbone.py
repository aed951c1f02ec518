"""Which backbone goes with a data set, where its windows and their rule are left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extract.backbones.loading import BackboneCard, backbone_card
from extract.datasets import default_window, default_window_rule
from extract.views.recipes import ViewRecipe


def chosen_card(
    dataset: str,
    recipe: ViewRecipe,
    model: str,
    model_args: Mapping[str, Any],
    levels: Sequence[str] | None,
    window_rule: str | None,
) -> BackboneCard:
    """The card of a backbone; a Swin has the data set's window rule by default, and with `cover` its windows.

    With `partition` it has its own windows by default, as in earlier releases.

    Args:
        dataset: a module of extract.datasets.
        recipe: of the views, whose size decides the windows.
        model, model_args, levels, window_rule: as of `extract.backbones.loading.backbone_card`; None: the
            data set's default.

    Raises ValueError as `backbone_card` does.
    """
    card = backbone_card(model, model_args, levels, window_rule=window_rule or "partition")
    if not card.windows:
        return card
    args, rule = dict(model_args), window_rule or default_window_rule(dataset)
    window = default_window(dataset, recipe) if rule == "cover" else None
    if window is not None:
        args.setdefault("window_size", window)
    return backbone_card(model, args, levels, window_rule=rule)
