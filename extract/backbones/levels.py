"""Levels of a backbone by name: maps of stages and blocks, prefix tokens, and vectors pooled over an image.

| name | holds | of |
|---|---|---|
| p2 .. p5 | raw output of the stage of stride 4 .. 32 | Swin, any model with a feature pyramid |
| p5n | p5 after the backbone's last norm | Swin |
| s<stage>.b<i> | raw output of block i of a stage | Swin |
| b<i>, b<i>n | map of block i, raw or after the backbone's last norm | plain ViTs |
| cls<i>, cls<i>n | class token after block i | plain ViTs with one |
| reg<i>, reg<i>n | register tokens after block i, one after another in the channels | plain ViTs with some |
| avg<i>, avg<i>n | mean of block i's map over the cells that show the image | plain ViTs |
| avg | mean of the last map (p5n of a Swin) over the cells that show the image | Swin, feature pyramids |
| pooled | what the model's own classifier reads: timm's `forward_head(..., pre_logits=True)` | all |

Two names stand for what a model has of them: `last` for the last map, after the last norm where there is
one, and `probe` for what linear probes read: `avg` of a Swin, class tokens of the last four blocks and the
mean of the last one of a ViT, `pooled` of any other model.

Blocks and stages count from 1. Tokens and vectors are levels of one cell, (C, 1, 1), whatever the image size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, cast, get_args

from torch import nn

from extract.swin.timm_swin import SWIN_FAMILIES, stages_of
from stores.pyramid import ONE_CELL_PX, Level, PyramidSpec

STRIDES_PX = (4, 8, 16, 32)
"""Levels p2..p5."""
PLAIN = "plain"
"""The family of models whose blocks all give maps of one stride."""
FEATURES = "features"
"""The family of models with a feature pyramid that are no Swin."""

Kind = Literal["stage_block", "stage", "block", "cls", "reg", "avg", "whole_avg", "pooled"]
"""In the order of levels of one stride and stage."""

_PROBED_BLOCKS = 4
"""Of DINOv2's grid (dinov2@b8931f7 dinov2/eval/linear.py)."""
_NAMES = re.compile(
    r"p(?P<octave>\d+)(?P<stage_norm>n)?|s(?P<stage>\d+)\.b(?P<stage_block>\d+)"
    r"|(?P<kind>b|cls|reg|avg)(?P<block>[1-9]\d*)(?P<norm>n)?|(?P<whole>avg|pooled)"
)


@dataclass(frozen=True, slots=True)
class LevelName:
    """A name of the table above, taken apart."""

    kind: Kind
    number: int = 0
    """log2 of the stride (`stage`), else the block, from 1; 0 without."""
    stage: int = 0
    """Of `stage_block`, from 1."""
    normed: bool = False
    """After the backbone's last norm."""


def parse_level(name: str) -> LevelName | None:
    """None for a name outside the table.

    >>> parse_level("cls12n")
    LevelName(kind='cls', number=12, stage=0, normed=True)
    >>> parse_level("s3.b5"), parse_level("x1")
    (LevelName(kind='stage_block', number=5, stage=3, normed=False), None)
    """
    found = _NAMES.fullmatch(name)
    if found is None:
        return None
    part = found.groupdict()
    if part["whole"]:
        return LevelName("pooled" if name == "pooled" else "whole_avg", normed=name == "avg")
    if part["octave"]:
        return LevelName("stage", int(part["octave"]), normed=bool(part["stage_norm"]))
    if part["stage"]:
        return LevelName("stage_block", int(part["stage_block"]), int(part["stage"]))
    kind = cast(Kind, "block" if part["kind"] == "b" else part["kind"])
    return LevelName(kind, int(part["block"]), normed=bool(part["norm"]))


def family_of(trunk: nn.Module) -> str:
    """swinv2, swinv2_cr, swin; plain where all blocks have one stride; features for anything else."""
    if family := SWIN_FAMILIES.get(type(trunk)):
        return family
    strides = {info["reduction"] for info in feature_info(trunk)}
    return PLAIN if len(strides) == 1 and len(feature_info(trunk)) > 1 else FEATURES


def feature_info(trunk: Any) -> list[dict[str, Any]]:
    """timm's records of the maps a model gives, with channels and stride of each; none without any."""
    info = getattr(trunk, "feature_info", None)
    if not info or not hasattr(trunk, "forward_intermediates"):
        return []
    records = [dict(record) for record in (info.info if hasattr(info, "info") else info)]
    patch_px = patch_of(trunk)
    return [{"reduction": patch_px, **record} for record in records]  # timm states none for SAM


def patch_of(trunk: Any) -> int | None:
    """The side of a plain model's patches in pixels; None where it states none."""
    size = getattr(getattr(trunk, "patch_embed", None), "patch_size", None)
    return size if isinstance(size, int) or size is None else int(max(size))


def pad_px(trunk: Any) -> int:
    """What the network pads the sides of images to a multiple of, at the bottom and the right, in pixels: the
    patches of a plain model, else 4, those of Swin."""
    return int(feature_info(trunk)[0]["reduction"]) if family_of(trunk) == PLAIN else 4


def view_multiple_px(trunk: Any) -> int:
    """What the sides of views are multiples of, in pixels: the patches of a plain model, else 32."""
    return pad_px(trunk) if family_of(trunk) == PLAIN else STRIDES_PX[-1]


def last_stride_px(trunk: Any) -> int:
    """The side of a cell of the last map, in pixels."""
    strides = [info["reduction"] for info in feature_info(trunk)]
    return int(max([stride for stride in strides if stride in STRIDES_PX] or strides or [1]))


def blocks_of(pyramid: PyramidSpec) -> list[tuple[int, int]]:
    """Stage and block of the levels that are outputs of a Swin's blocks."""
    parsed = [parse_level(level.name) for level in pyramid]
    return [(name.stage, name.number) for name in parsed if name and name.kind == "stage_block"]


def class_tokens(trunk: Any) -> int:
    """1 where the model's prefix tokens begin with a class token, else 0."""
    return int(prefix_tokens(trunk) > 0 and getattr(trunk, "cls_token", None) is not None)


def prefix_tokens(trunk: Any) -> int:
    """Tokens that stand before those of patches and that timm's models return."""
    returned = "return_prefix_tokens" in signature(trunk.forward_intermediates).parameters
    return int(getattr(trunk, "num_prefix_tokens", 0) or 0) if returned else 0


def last_norm(trunk: Any) -> nn.Module | None:
    """The norm over every token that ends a plain model; None where it has none, as with `fc_norm`."""
    norm = getattr(trunk, "norm", None)
    return None if not isinstance(norm, nn.Module) or isinstance(norm, nn.Identity) else norm


def pyramid_of(model: str, trunk: Any, names: Sequence[str] | None) -> PyramidSpec:
    """The levels of those names, finest first, pooled ones last.

    Args:
        model: for errors.
        trunk: timm's model, on any device.
        names: of the table, `last` or `probe`; None: p2..p5 as far as the model has them, of a plain model
            the last block's map, after its last norm where it has one.

    Raises ValueError for a name that the model does not have; says which it has.
    """
    levels = _LevelsOf(model, trunk)
    wanted = (
        dict.fromkeys(each for name in names for each in levels.meant_by(name))
        if names
        else levels.default_names()
    )
    found = [levels.level(name) for name in wanted]
    return PyramidSpec(tuple(level for _, level in sorted(found, key=lambda pair: pair[0])))


_Order = tuple[float, int, int, bool, str]
"""Stride, stage, kind, normed, name: of the place of a level in its pyramid."""


class _LevelsOf:
    """The levels of one model."""

    def __init__(self, model: str, trunk: Any) -> None:
        self.model, self.trunk, self.family = model, trunk, family_of(trunk)
        self.info = feature_info(trunk)

    def default_names(self) -> list[str]:
        if self.family == PLAIN:
            return [f"b{len(self.info)}{'n' if last_norm(self.trunk) else ''}"]
        stages = self._stages()
        if len(stages) < 2:
            raise ValueError(
                f"{self.model} has no feature pyramid: its stages have strides "
                f"{[info['reduction'] for info in self.info] or 'unknown'}, expected increasing strides from "
                f"{STRIDES_PX}"
            )
        return [f"p{octave}" for octave in stages]

    def meant_by(self, name: str) -> list[str]:
        """The levels that `last` and `probe` stand for; another name by itself."""
        if name == "last":
            last = self.default_names()[-1]
            return [f"{last}n" if self.family in SWIN_FAMILIES.values() else last]
        if name != "probe":
            return [name]
        if self.family in SWIN_FAMILIES.values():
            return ["avg"]
        if self.family != PLAIN or not class_tokens(self.trunk):
            return ["pooled"]
        blocks, norm = len(self.info), "n" if last_norm(self.trunk) else ""
        first = max(1, blocks - _PROBED_BLOCKS + 1)
        tokens = [f"cls{block}{norm}" for block in range(first, blocks + 1)]
        return [*tokens, f"avg{blocks}{norm}"]

    def level(self, name: str) -> tuple[_Order, Level]:
        """The level and its place. Raises ValueError for one that the model does not have."""
        parsed = parse_level(name)
        problem = f"{self.model} has no level {name}"
        made = None if parsed is None else self._made(name, parsed)
        if isinstance(made, Level):
            assert parsed is not None
            kind = get_args(Kind).index(parsed.kind)
            return (made.stride_px, made.stage, kind, parsed.normed, name), made
        raise ValueError(f"{problem}{f' ({made})' if made else ''}; it has {self._available()}")

    def _made(self, name: str, parsed: LevelName) -> Level | str | None:
        """The level, or why there is none."""
        if self.family == PLAIN:
            return self._of_blocks(name, parsed)
        return self._of_stages(name, parsed)

    def _stages(self) -> dict[int, tuple[int, int]]:
        """log2 of the stride -> (stage, channels); none where two stages have one stride."""
        found = {
            int(math.log2(info["reduction"])): (stage, info["num_chs"])
            for stage, info in enumerate(self.info, start=1)
            if info["reduction"] in STRIDES_PX
        }
        distinct = sum(info["reduction"] in STRIDES_PX for info in self.info)
        return found if len(found) == distinct else {}

    def _of_stages(self, name: str, parsed: LevelName) -> Level | str | None:
        stages, is_swin = self._stages(), self.family != FEATURES
        if parsed.kind == "stage" and parsed.number in stages:
            if parsed.normed and not (is_swin and parsed.number == max(stages)):
                return None
            stage, channels = stages[parsed.number]
            return Level(name=name, stride_px=1 << parsed.number, channels=channels, stage=stage)
        if parsed.kind == "stage_block" and is_swin:
            return self._swin_block(name, parsed)
        if parsed.kind == "whole_avg" and stages:
            stage, channels = stages[max(stages)]
            return Level(name=name, stride_px=ONE_CELL_PX, channels=channels, stage=stage)
        if parsed.kind == "pooled":
            return self._pooled(name, len(self.info))
        return None

    def _swin_block(self, name: str, parsed: LevelName) -> Level | str:
        stages = stages_of(self.trunk)
        blocks = [len(stage.blocks) for stage in stages]
        if not (1 <= parsed.stage <= len(blocks) and 1 <= parsed.number <= blocks[parsed.stage - 1]):
            return f"its stages have {', '.join(map(str, blocks))} blocks"
        info = self.info[parsed.stage - 1]
        return Level(name=name, stride_px=info["reduction"], channels=info["num_chs"], stage=parsed.stage)

    def _of_blocks(self, name: str, parsed: LevelName) -> Level | str | None:
        if parsed.kind == "pooled":
            return self._pooled(name, len(self.info))
        if parsed.kind not in ("block", "cls", "reg", "avg"):
            return None
        if parsed.number > len(self.info):
            return f"it has {len(self.info)} blocks"
        if parsed.normed and last_norm(self.trunk) is None:
            return "it has no last norm over its tokens: take the raw level, whose head has a norm of its own"
        info, tokens = self.info[parsed.number - 1], class_tokens(self.trunk)
        if parsed.kind == "block":
            stride_px, count = info["reduction"], 1
        else:
            stride_px = ONE_CELL_PX
            count = {"cls": tokens, "reg": prefix_tokens(self.trunk) - tokens, "avg": 1}[parsed.kind]
        if not count:
            return f"it returns no {'class token' if parsed.kind == 'cls' else 'register tokens'}"
        return Level(name=name, stride_px=stride_px, channels=count * info["num_chs"], stage=parsed.number)

    def _pooled(self, name: str, stage: int) -> Level | str:
        if not hasattr(self.trunk, "forward_head"):
            return "timm's model has no forward_head"
        return Level(name=name, stride_px=ONE_CELL_PX, channels=_pooled_width(self.trunk), stage=stage)

    def _available(self) -> str:
        if self.family == PLAIN:
            norm = "n" if last_norm(self.trunk) else ""
            tokens, prefix = class_tokens(self.trunk), prefix_tokens(self.trunk)
            kinds = ["b", *["cls"] * tokens, *["reg"] * (prefix > tokens), "avg"]
            last = len(self.info)
            names = [f"{kind}1..{kind}{last}" for kind in kinds]
            normed = f", each also after the last norm ({kinds[0]}{last}n)" if norm else ""
            return f"{', '.join(names)}{normed}, pooled"
        names = [f"p{octave}" for octave in self._stages()]
        if self.family != FEATURES:
            names += ["p5n", "s<stage>.b<block>"]
        return ", ".join([*names, *["avg"] * bool(names), "pooled"])


def _pooled_width(trunk: Any) -> int:
    """Channels of `pooled`."""
    return int(getattr(trunk, "head_hidden_size", None) or trunk.num_features)
