"""Which backbone goes with a data set, where its windows and their rule are left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from extract.backbones.hub import pretrained_tags
from extract.backbones.loading import BackboneCard, backbone_card
from extract.datasets import Named, default_window, default_window_rule
from extract.views.recipes import ViewRecipe
from extract.views.view import interpolation_of, revision_of
from pipelines.catalog.stores import list_stores
from pipelines.config import PlanConfig, TrainConfig
from pipelines.errors import UsageError
from stores.format.canonical_json import diff_identity

_OF_WINDOWS = {"backbone.window_rule", "backbone.windows", "backbone.args.window_size"}
"""Fields of an identity that differ where only the window rule and the windows that go with it do."""
_OF_REVISIONS = {"views.replay.revision", "views.replay.image_resize"}
_OF_INTERPOLATIONS = {"views.interpolation", "views.replay.image_resize", "views.replay.resize"}


def chosen_card(
    dataset: Named,
    recipe: ViewRecipe,
    model: str,
    model_args: Mapping[str, Any],
    levels: Sequence[str] | None,
    window_rule: str | None,
    *,
    default_levels: Sequence[str] | None = None,
    **pixels: Any,
) -> BackboneCard:
    """The card of a backbone; a Swin has the data set's window rule by default, and with `cover` its windows.

    With `partition` it has its own windows by default, as in earlier releases.

    Args:
        dataset: as of `extract.datasets.dataset_module`.
        recipe: of the views, whose size decides the windows.
        model, model_args, levels, window_rule: as of `extract.backbones.loading.backbone_card`; None: the
            data set's default.
        default_levels: where `levels` is None: the data set's, as far as the model has all of them.
        pixels: mean, std, interpolation and pos_resample of `backbone_card`.

    Raises ValueError as `backbone_card` does.
    """
    if levels is None and default_levels is not None and _has(model, model_args, default_levels):
        levels = default_levels
    card = backbone_card(model, model_args, levels, window_rule=window_rule or "partition", **pixels)
    if not card.windows:
        return card
    args, rule = dict(model_args), window_rule or default_window_rule(dataset)
    window = default_window(dataset, recipe) if rule == "cover" else None
    if window is not None:
        args.setdefault("window_size", window)
    return backbone_card(model, args, levels, window_rule=rule, **pixels)


def _has(model: str, model_args: Mapping[str, Any], levels: Sequence[str]) -> bool:
    try:
        backbone_card(model, model_args, levels)
    except ValueError:  # another fault of the model is reported when its card is made
        return False
    return True


class Pixels(TypedDict):
    """What a config says of a backbone's input, for `chosen_card`."""

    mean: Sequence[float] | None
    std: Sequence[float] | None
    interpolation: str | None
    pos_resample: str


def pixels_of(config: PlanConfig | TrainConfig) -> Pixels:
    """Raises UsageError where a file's weights leave mean and deviation open: see `tagged_model`."""
    return {
        "mean": config.mean,
        "std": config.std,
        "interpolation": config.interpolation,
        "pos_resample": config.pos_resample or "timm",
    }


def tagged_model(config: PlanConfig | TrainConfig) -> str:
    """The model with its pretrained tag, `timm:<id>.<tag>`, which gives mean, deviation and size.

    Raises UsageError for a tag of a model that is not `timm:<id>`, or beside another tag; for weights of a
    file without a tag where the tags of the model differ in mean or deviation, unless both are given.
    """
    model, tag = str(config.model), config.pretrained_tag
    name = model.removeprefix("timm:")
    if tag is not None:
        if name == model or "." in name:
            raise UsageError(f"--pretrained-tag {tag}: {model} is no timm:<id> without a tag")
        return f"{model}.{tag}"
    weights = config.weights or "timm"
    from_file = weights != "timm" and not weights.startswith("random:")
    if name == model or "." in name or not from_file or (config.mean and config.std):
        return model
    tags = pretrained_tags(name)
    if len(set(tags.values())) > 1:
        lines = "".join(f"\n  {tag}: mean {_numbers(m)}, std {_numbers(s)}" for tag, (m, s) in tags.items())
        raise UsageError(
            f"--weights {weights}: the file does not say how images are normalised, and weights of {model} "
            f"differ in it; pass --pretrained-tag with one of these, or --mean and --std:{lines}"
        )
    return model


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def of_other_resizes(
    stores: Path, identity: Mapping[str, Any], *, interpolation_given: bool
) -> list[tuple[Path, str, str]]:
    """Stores, complete or not, that differ from the one that is asked for in how images are resized alone:
    the path, what earlier releases did, and the flags that continue the store.

    Args:
        interpolation_given: the user chose it, so that stores of another are not meant.
    """
    found = []
    for store in list_stores(stores):
        fields, words, flags = {field for field, *_ in diff_identity(identity, store.identity)}, [], []
        if not fields <= (_OF_REVISIONS if interpolation_given else _OF_REVISIONS | _OF_INTERPOLATIONS):
            continue
        if "views.replay.revision" in fields:
            revision = revision_of(store.identity["views"])
            words.append(f"by revision {revision} of their code")
            flags.append(f"--view-revision {revision}")
        if "views.interpolation" in fields:
            interpolation = interpolation_of(store.identity["views"])
            words.append(f"of images resized by {interpolation} interpolation")
            flags.append(f"--interpolation {interpolation}")
        if flags:
            found.append((store.path, " and ".join(words), " ".join(flags)))
    return found


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
