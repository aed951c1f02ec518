"""Backbone cards: model, pyramid, windows and identity, without building the backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from torch import nn

from extract.backbones.levels import (
    FEATURES,
    PLAIN,
    class_tokens,
    family_of,
    last_stride_px,
    pyramid_of,
    view_multiple_px,
)
from extract.backbones.position_resampling import resamples_positions
from extract.swin.timm_swin import SWIN_FAMILIES, pretrained_windows_of, probe, stages_of, windows_of
from extract.swin.window_rule import WindowRule
from extract.views.view import INTERPOLATIONS
from stores.plugins import Plugin, entry_plugins, missing_package, package_of, provided_by
from stores.pyramid import PyramidSpec
from stores.suggestion import did_you_mean

REVISIONS: Mapping[str, int] = {"swinv2": 1, "swinv2_cr": 1, "swin": 1, FEATURES: 1, PLAIN: 1}
"""Family -> its revision, raised whenever the numbers of that family change; part of every identity."""

Windows = tuple[tuple[int, int], ...]
Rgb = tuple[float, float, float]
PosResample = Literal["timm", "dinov2"]
"""Bicubic, with antialias as timm (`timm`) or without as DINOv2 and transformers (`dinov2`): features differ
by 2 to 6 % at other sizes than the model's own."""


GROUP = "permafrost.backbones"
"""Of the entry points by which installed packages add backbones: modules with `BACKBONE`, a BackboneRow."""


@dataclass(frozen=True, slots=True)
class BackboneRow:
    """A timm model and its constructor arguments."""

    timm_id: str
    args: Mapping[str, Any] = field(default_factory=dict)
    mean: Rgb | None = None
    """Of RGB in 0..1, subtracted first; None: as timm's entry has it."""
    std: Rgb | None = None
    """Of RGB in 0..1, divided by; None: as timm's entry has it."""
    interpolation: str | None = None
    """Of the resize of images, bilinear or bicubic; None: as timm's entry has it, for backbones of this
    project as the view recipe has it, which is that of a paper."""


BACKBONES: Mapping[str, BackboneRow] = {
    "swinv2-t": BackboneRow("swinv2_tiny_window8_256.ms_in1k"),
    "swinv2-s": BackboneRow("swinv2_small_window8_256.ms_in1k"),
    "swinv2-b": BackboneRow("swinv2_base_window12_192.ms_in22k"),
    "swinv2-l": BackboneRow("swinv2_large_window12_192.ms_in22k"),
    # Depths of the paper's 3-billion-parameter model; timm's entry is one block pair short in stage 4.
    # Window 40 is the papers' at 640 px; stage 4's grid of 20 caps its window.
    "swinv2-g": BackboneRow(
        "swinv2_cr_giant_384.untrained", {"depths": [2, 2, 42, 4], "window_size": [40, 40, 40, 20]}
    ),
    "swinv2-nano": BackboneRow(
        "swinv2_tiny_window8_256.ms_in1k",
        {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": [8, 8, 8, 4]},
    ),
}
"""The names of this project; any other timm model is `timm:<id>`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneCard:
    """A backbone and the levels wanted of it. Cheap, picklable, without weights."""

    model: str
    """Our name, or `timm:<id>`."""
    timm_id: str
    args: Mapping[str, Any]
    """Constructor arguments over timm's own, as JSON values: the table's row and `--model-args`."""
    family: str
    """swinv2, swinv2_cr (SwinV2-G), swin (V1), plain (ViTs), or features: any other timm model."""
    pyramid: PyramidSpec
    """The levels wanted; channels and strides of each."""
    windows: Windows
    """Height and width in cells of each stage's windows; empty for a model that is no Swin."""
    pretrained_windows: Windows
    """The windows SwinV2's position coordinates are relative to; empty for other families."""
    window_rule: WindowRule
    """What becomes of windows that a map does not fill; `partition` for a model that is no Swin."""
    mean: Rgb
    """Of RGB in 0..1, subtracted first."""
    std: Rgb
    """Of RGB in 0..1, divided by."""

    interpolation: str | None = None
    """Of the resize of its images, bilinear or bicubic; None: the view recipe's. It stands in the identity of
    the views."""
    multiple_px: int = 32
    """Sides of views are multiples of it, in pixels: of a plain ViT its patches."""
    pos_resample: PosResample = "timm"
    """How a plain ViT's position embeddings follow the size of the image, see `PosResample`."""
    licence: str | None = None
    """Of the weights that timm names for the model, as timm records it."""
    last_stride_px: int = 32
    """Pixels of a cell's side in the last map, which pooled levels are means of."""
    class_tokens: int = 0
    """1 where the prefix tokens of a plain ViT begin with a class token."""

    @property
    def is_swin(self) -> bool:
        """Whether it has windows, and takes images of any size."""
        return self.family in SWIN_FAMILIES.values()

    @property
    def constructor_args(self) -> dict[str, Any]:
        """All arguments of timm's constructor but the number of classes.

        Windows and shifts that do not depend on the construction size: `always_partition` keeps both as they
        are, `dynamic_img_size` takes any input size. Their rule is `create_trunk`'s own argument.
        """
        if self.family == PLAIN:
            takes_any = hasattr(probe(self.timm_id, self.args), "dynamic_img_size")
            return {**self.args, **({"dynamic_img_size": True} if takes_any else {})}
        if not self.is_swin:
            return dict(self.args)
        rules: dict[str, Any] = {
            "window_size": self.windows,
            "always_partition": True,
            "dynamic_img_size": True,
            "drop_path_rate": 0.0,
        }
        if self.pretrained_windows:
            rules["pretrained_window_sizes"] = self.pretrained_windows
        return {**self.args, **rules}

    def identity(self, *, weights_sha256: str, precision: str) -> dict[str, Any]:
        """What decides the features' numbers, as JSON values; the levels stand in the store's plan.

        Without a window rule it is of `partition`, the only one of earlier releases.

        Args:
            weights_sha256: 64 hex digits, of `extract.backbones.weights.tensors_sha256`.
            precision: fp32, fp16 or bf16.
        """
        rule: dict[str, Any] = {} if self.window_rule == "partition" else {"window_rule": self.window_rule}
        if self.pos_resample != "timm":
            rule["pos_resample"] = self.pos_resample
        return {
            "model": self.model,
            "timm_id": self.timm_id,
            "args": dict(self.args),
            "windows": [list(window) for window in self.windows],
            "pretrained_windows": [list(window) for window in self.pretrained_windows],
            **rule,
            "weights_sha256": weights_sha256,
            "precision": precision,
            "mean": list(self.mean),
            "std": list(self.std),
            "revision": REVISIONS[self.family],
            **provided_by(package_of(GROUP, self.model)),
        }


def backbone_card(
    model: str,
    model_args: Mapping[str, Any] | None = None,
    levels: Sequence[str] | None = None,
    window_rule: str = "partition",
    *,
    package: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    pos_resample: str = "timm",
) -> BackboneCard:
    """The card of a backbone, without building its weights.

    Windows are those of timm's model at its own construction size or at the given `img_size`, so 12, 12, 12
    and 6 for window12_192; a given `window_size` holds for every stage, or is one value a stage.

    Args:
        model: a name of `backbone_names`, or `timm:<id>`.
        model_args: constructor arguments over the row's, JSON values.
        levels: such as ("p4", "p5"), see `extract.backbones.levels`; None: p2..p5, as far as the model has
            them, of a plain ViT the last block's map.
        package: that provided the backbone when a store was made, for the error.
        window_rule: partition or cover, see `extract.swin.window_rule.WindowRule`.
        mean, std: of RGB in 0..1; None: as the row, else timm's entry, has them.
        interpolation: bilinear or bicubic; None: as the row, else timm's entry, has it.
        pos_resample: timm or dinov2, see `PosResample`.

    Raises:
        ValueError: unknown model, argument, level or window rule; lists the names there are. Cover for a
            model that is no Swin, dinov2 for one whose position embeddings are not resampled.
    """
    rule = _rule(window_rule)
    row = _row(model, package)
    given = json.loads(json.dumps(dict(model_args or {})))
    args = {**row.args, **given}
    _refuse_own_arguments(given)
    trunk: Any = probe(row.timm_id, args)
    family = family_of(trunk)
    pyramid, is_swin = pyramid_of(model, trunk, levels), family in SWIN_FAMILIES.values()
    if not is_swin and rule != "partition":
        raise ValueError(f"window rule {rule}: {model} is no Swin, it has no windows; leave the rule out")
    windows: Windows = ()
    pretrained: Windows = ()
    if is_swin:
        _require_whole_heads(trunk)
        windows = _every_stage(args["window_size"], trunk) if "window_size" in args else windows_of(trunk)
    if family == "swinv2":
        pretrained = pretrained_windows_of(trunk) or _row_windows(row, given)
    return BackboneCard(
        model=model,
        timm_id=row.timm_id,
        args=args,
        family=family,
        pyramid=pyramid,
        windows=windows,
        pretrained_windows=pretrained,
        window_rule=rule,
        last_stride_px=last_stride_px(trunk),
        multiple_px=view_multiple_px(trunk),
        pos_resample=_pos_resample(pos_resample, model, trunk),
        licence=trunk.pretrained_cfg.get("license"),
        class_tokens=class_tokens(trunk) if family == PLAIN else 0,
        mean=_rgb("mean", mean or row.mean or trunk.pretrained_cfg["mean"], 0),
        std=_rgb("std", std or row.std or trunk.pretrained_cfg["std"], 1e-3),
        interpolation=interpolation or row.interpolation or _timms_interpolation(model, trunk),
    )


def card_of_identity(wanted: Mapping[str, Any], levels: Sequence[str] | None = None) -> BackboneCard:
    """The card of the backbone that a store's identity names; levels and errors as of `backbone_card`.

    Args:
        wanted: the identity's `backbone`; without a window rule it is of `partition`, as in earlier releases.
    """
    return backbone_card(
        wanted["model"],
        wanted["args"],
        levels,
        str(wanted.get("window_rule", "partition")),
        package=wanted.get("package"),
        mean=wanted.get("mean"),
        std=wanted.get("std"),
        pos_resample=str(wanted.get("pos_resample", "timm")),
    )


def _timms_interpolation(model: str, trunk: Any) -> str | None:
    """None for backbones of this project, and where timm's entry names none that views can have."""
    recorded = trunk.pretrained_cfg.get("interpolation")
    return recorded if model not in BACKBONES and recorded in INTERPOLATIONS else None


def _rgb(name: str, values: Sequence[float], least: float) -> Rgb:
    if len(values) != 3 or not all(least <= value <= 1 for value in values):
        raise ValueError(
            f"{name} {','.join(f'{value:g}' for value in values)}: expected three numbers from {least:g} to "
            f"1, of red, green and blue in 0..1, such as 0.485,0.456,0.406"
        )
    red, green, blue = values
    return red, green, blue


def _pos_resample(rule: str, model: str, trunk: nn.Module) -> PosResample:
    for known in get_args(PosResample):
        if rule == known:
            if rule != "timm" and not resamples_positions(trunk):
                raise ValueError(
                    f"pos_resample {rule}: {model} has no position embeddings that timm resamples; leave it "
                    f"out"
                )
            return cast(PosResample, known)
    raise ValueError(f"pos_resample {rule!r}: expected {' or '.join(get_args(PosResample))}")


def _rule(name: str) -> WindowRule:
    for rule in get_args(WindowRule):
        if rule == name:
            return cast(WindowRule, rule)
    raise ValueError(f"window rule {name!r}: expected {' or '.join(get_args(WindowRule))}")


def backbone_names() -> tuple[str, ...]:
    """The names of this project's backbones and of those that other packages add."""
    return (*BACKBONES, *_others())


def _row(model: str, package: str | None = None) -> BackboneRow:
    others = _others()
    if model in BACKBONES:
        return BACKBONES[model]
    if model in others:
        row: BackboneRow = others[model].load().BACKBONE
        return row
    if model.startswith("timm:"):
        return BackboneRow(model.removeprefix("timm:"))
    raise ValueError(
        f"no backbone {model!r}; available: {', '.join(backbone_names())}, and timm:<id> for timm's models"
        f"{missing_package(package)}{_nearest(model)}"
    )


def _nearest(model: str) -> str:
    """The end of an error: timm's model of that name, the way of a repository, or the nearest backbone."""
    if model.startswith(("hf:", "hf-hub:")):
        return (
            "; a repository is read by its weights: pass timm:<id> of the same network with --weights "
            "model.safetensors, the repository's file (see docs/backbones.md, Weights from files)"
        )
    import timm  # late, for an error: names of backbones need no timm

    is_timms = timm.is_model(model.partition(".")[0])
    return f"; did you mean timm:{model}?" if is_timms else did_you_mean(model, backbone_names())


def _others() -> Mapping[str, Plugin]:
    """Those of other packages. Raises PluginError for a name that is taken."""
    return entry_plugins(GROUP, {name: Plugin(name, __name__) for name in BACKBONES})


_OWN_ARGUMENTS = {
    **dict.fromkeys(
        ("always_partition", "dynamic_img_size", "strict_img_size", "drop_path_rate"),
        "fixed for every frozen backbone",
    ),
    **dict.fromkeys(("num_classes", "features_only", "in_chans"), "a backbone gives levels of RGB images"),
    **dict.fromkeys(
        ("pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"),
        "weights are named by --weights",
    ),
    **dict.fromkeys(("scriptable", "exportable", "no_jit"), "they do not change the model"),
}
"""Constructor arguments that callers cannot set, and why."""


def _refuse_own_arguments(given: Mapping[str, Any]) -> None:
    for name in sorted(_OWN_ARGUMENTS.keys() & given.keys()):
        raise ValueError(f"--model-args {name}: cannot be set ({_OWN_ARGUMENTS[name]})")


def _require_whole_heads(trunk: nn.Module) -> None:
    """Raises ValueError where heads do not divide a stage's channels: timm fails only in the forward pass."""
    for number, stage in enumerate(stages_of(trunk), start=1):
        attention = stage.blocks[0].attn
        channels, heads = attention.qkv.in_features, attention.num_heads
        if channels % heads:
            raise ValueError(f"stage {number} has {channels} channels, which {heads} heads do not divide")


def _every_stage(window_size: Any, trunk: Any) -> Windows:
    """A window argument (an int, or one int or pair a stage) as one pair a stage."""
    stages = len(stages_of(trunk))
    each = [window_size] * stages if isinstance(window_size, int) else list(window_size)
    if len(each) != stages:
        raise ValueError(f"window_size {window_size}: expected an int or {stages} values, one a stage")
    return tuple((size, size) if isinstance(size, int) else (size[0], size[1]) for size in each)


def _row_windows(row: BackboneRow, given: Mapping[str, Any]) -> Windows:
    """The windows a row's model was pretrained with: without the caller's window_size and img_size."""
    kept = {key: value for key, value in given.items() if key not in ("window_size", "img_size")}
    trunk = probe(row.timm_id, {**row.args, **kept})
    return _every_stage(row.args["window_size"], trunk) if "window_size" in row.args else windows_of(trunk)
