"""Which backbone goes with a data set, where its windows and their rule are left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.backbones.loading import BackboneCard, backbone_card
from extract.datasets import Named, default_window, default_window_rule
from extract.views.recipes import ViewRecipe
from pipelines.catalog.stores import list_stores
from stores.format.canonical_json import diff_identity

_OF_WINDOWS = {"backbone.window_rule", "backbone.windows", "backbone.args.window_size"}
"""Fields of an identity that differ where only the window rule and the windows that go with it do."""


def chosen_card(
    dataset: Named,
    recipe: ViewRecipe,
    model: str,
    model_args: Mapping[str, Any],
    levels: Sequence[str] | None,
    window_rule: str | None,
) -> BackboneCard:
    """The card of a backbone; a Swin has the data set's window rule by default, and with `cover` its windows.

    With `partition` it has its own windows by default, as in earlier releases.

    Args:
        dataset: as of `extract.datasets.dataset_module`.
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


def begun_by_another_rule(stores: Path, identity: Mapping[str, Any]) -> list[Path]:
    """Incomplete stores of `partition` that are otherwise the store of `cover` that is asked for."""
    if identity["backbone"].get("window_rule") != "cover":
        return []
    found = []
    for store in list_stores(stores):
        fields = {field for field, *_ in diff_identity(identity, store.identity)}
        if not store.complete and "backbone.window_rule" in fields and fields <= _OF_WINDOWS:
            found.append(store.path)
    return found
