"""Intermediate outputs of a head for one image: of its neck, box heads, pixel decoder or queries.

Dims: N images (1), R RoIs, Q queries, L cells of all levels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heads.boxes.boxes import clip_boxes
from heads.boxes.ground_truth import image_sizes
from heads.boxes.roi_align import flat_rois
from heads.contract import Features, Head, SizeYX
from heads.detection.base import DetectionHead
from heads.detection.box_head import BOX_CELLS, BoxHead, ConvBoxHead
from heads.detection.cascade import Cascade
from heads.detection.mask_rcnn import MaskRCNN
from heads.errors import HeadError
from heads.mask2former.head import Mask2Former

ROIS = 16
"""Proposals of an image that are followed through the stages."""
Groups = Mapping[str, Mapping[str, Tensor]]
"""Group (a level, or all) -> name of an output, in order -> one row for each example."""
PartOutputs = Callable[[Any, Features, SizeYX], Groups]


def part_names(head: Head) -> tuple[str, ...]:
    """The parts that a head has: of neck, roi, pixel and queries."""
    found = ["neck"] if any(_is_read(neck) for neck in head.necks.values()) else []
    if isinstance(head, Cascade | MaskRCNN):
        found.append("roi")
    if isinstance(head, Mask2Former):
        found += ["pixel", "queries"]
    return tuple(found)


@torch.inference_mode()
def part_outputs(head: Head, part: str, features: Features, valid_hw: SizeYX) -> Groups:
    """Outputs of a part for one image; all groups of one image have equal rows in their outputs.

    neck: a group a level, its maps (1, C, y, x): the input of the first layer, then F1.. of each BiFPN layer,
    or of an FPN the lateral and the output. roi: one group, (R, ...): pooled RoIs and outputs of each layer,
    stage by stage, R proposals of the first stage refined by each. pixel: a group a level, (1, C, y, x): its
    projection, then F1... queries: one group, (1, Q, C), after each layer.

    Raises HeadError for a part that the head lacks.
    """
    if part not in part_names(head):
        raise HeadError(
            f"part {part}: {type(head).__name__} has {', '.join(part_names(head)) or 'none of its parts'}"
        )
    return _PARTS[part](head, features, valid_hw)


def _of_neck(head: Head, features: Features, valid_hw: SizeYX) -> Groups:
    neck: Any = next(neck for neck in head.necks.values() if _is_read(neck))
    calls: list[tuple[str, Sequence[Tensor]]] = []
    if hasattr(neck, "layers"):
        watched: list[nn.Module] = list(neck.layers)
    else:
        watched = [neck]
    laterals: list[Tensor] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module is watched[0] and hasattr(neck, "layers"):
            calls.append(("input", list(inputs[0])))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if module in watched:
            if not hasattr(neck, "layers"):
                calls.append(("lateral", list(laterals)))
            calls.append((f"F{watched.index(module) + 1}", list(output)))
        else:
            laterals.append(output)

    others = [] if hasattr(neck, "layers") else list(neck.laterals)
    handles = [module.register_forward_hook(after) for module in (*watched, *others)]
    handles.append(watched[0].register_forward_pre_hook(before))
    try:
        _run(head, features, valid_hw)
    finally:
        for handle in handles:
            handle.remove()
    levels = [f"p{level}" for level in _octaves(calls[0][1], features)]
    return {level: {name: maps[at] for name, maps in calls} for at, level in enumerate(levels)}


def _is_read(neck: Any) -> bool:
    return hasattr(neck, "layers") or hasattr(neck, "laterals")


def _octaves(maps: Sequence[Tensor], features: Features) -> list[int]:
    """log2 of the stride of each map, from the finest feature's: p2 first where stride 4 is the finest."""
    finest = max(x.shape[-2] for x in features.values())
    first = min(int(name[1:]) for name in features if name[1:].isdigit()) if _are_octaves(features) else 0
    return [first + round(torch.log2(torch.tensor(finest / x.shape[-2])).item()) for x in maps]


def _are_octaves(features: Features) -> bool:
    return all(name[0] == "p" and name[1:].isdigit() for name in features)


def _run(head: Any, features: Features, valid_hw: SizeYX) -> None:
    """The forward pass up to the neck at least."""
    if isinstance(head, DetectionHead):
        head.neck_maps(features, [valid_hw])
    else:
        head.predict(features, [valid_hw], [valid_hw])


def _of_rois(head: Any, features: Features, valid_hw: SizeYX) -> Groups:
    maps = [x_NCYX.float() for x_NCYX in head.neck_maps(features, [valid_hw])]
    sizes_N2 = image_sizes([valid_hw], maps[0].device)
    proposals = head.rpn.propose(head.rpn(maps), sizes_N2, head.settings.test_candidates, ROIS)
    boxes_NP4, exists_P = proposals.boxes_NP4, proposals.exists_NP[0]
    box_heads: list[Any] = list(head.box_heads) if isinstance(head, Cascade) else [head.box_head]
    found: dict[str, Tensor] = {}
    for stage, box_head in enumerate(box_heads, start=1):
        pooled_RCyx = head.pool(maps, *flat_rois(boxes_NP4), BOX_CELLS)
        suffix = f" s{stage}" if len(box_heads) > 1 else ""
        found[f"RoI{suffix}"] = pooled_RCyx[exists_P]
        with _outputs_of(_trunk_layers(box_head)) as outputs:
            logits_RK, deltas_RB4 = box_head(pooled_RCyx)
        for number, x in enumerate(outputs, start=1):
            found[f"F{number}{suffix}"] = x[exists_P]
        refined_R4 = box_head.refine(deltas_RB4, boxes_NP4.flatten(0, 1), box_head.likeliest(logits_RK))
        boxes_NP4 = clip_boxes(refined_R4.view_as(boxes_NP4), sizes_N2)
    return {"RoIs": found}


def _trunk_layers(box_head: BoxHead) -> list[nn.Module]:
    if isinstance(box_head, ConvBoxHead):
        return [*box_head.convs, box_head.hidden1]
    return [box_head.hidden1, box_head.hidden2]


def _of_pixels(head: Any, features: Features, valid_hw: SizeYX) -> Groups:
    decoder = head.pixel_decoder
    with (
        _outputs_of(decoder.projections) as projected,
        _outputs_of(decoder.layers) as layers,
    ):
        head(features, [valid_hw])
    sizes = [(x.shape[2], x.shape[3]) for x in projected]
    cells = [height * width for height, width in sizes]
    found: dict[str, dict[str, Tensor]] = {}
    for at, (octave, size) in enumerate(zip(_octaves(projected, features), sizes, strict=True)):
        of_level = {"projection": projected[at]}
        for number, cells_NLC in enumerate(layers, start=1):
            x_NLC = torch.split(cells_NLC, cells, 1)[at]
            of_level[f"F{number}"] = x_NLC.transpose(1, 2).reshape(len(x_NLC), -1, *size)
        found[f"p{octave}"] = of_level
    return dict(reversed(found.items()))  # finest first, as elsewhere


def _of_queries(head: Any, features: Features, valid_hw: SizeYX) -> Groups:
    with _outputs_of(head.masked_decoder.layers) as layers:
        head(features, [valid_hw])
    # Before the first layer queries are the same for all images: nothing varies.
    return {"queries": {f"layer {number}": x_NQC for number, x_NQC in enumerate(layers, start=1)}}


_PARTS: Mapping[str, PartOutputs] = {
    "neck": _of_neck,
    "roi": _of_rois,
    "pixel": _of_pixels,
    "queries": _of_queries,
}


@contextmanager
def _outputs_of(modules: Sequence[nn.Module] | nn.ModuleList) -> Iterator[list[Tensor]]:
    """The outputs of modules in the order of their calls; one called twice gives two."""
    found: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _m, _i, output: found.append(output)) for m in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
