"""Attention of a live backbone over images: distance, entropy, KL between heads and leak of every block."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from extract.analysis.attention_statistics import AttentionSums, LayerStatistics
from extract.analysis.block_visits import visit_blocks
from extract.analysis.global_attention import (
    NoGlobalAttention,
    attention_logits,
    check_global,
    swin_v1_attention_sums,
    token_attention_sums,
)
from extract.analysis.window_attention import window_attention_sums
from extract.backbones.frozen_swin import FoldedSwin
from extract.backbones.levels import PLAIN, prefix_tokens
from extract.backbones.loading import BackboneCard, FrozenBackbone
from extract.swin.block import FoldedBlock
from extract.swin.timm_swin import probe
from extract.swin.window_rule import fit_windows, padded_grid
from pipelines.analyses.cost import Cost, announced_rows
from pipelines.analyses.live_images import LiveImage, live_backbones, live_card, live_images, patch_grid
from pipelines.analyses.pictures.dots import draw_dots
from pipelines.analyses.written import Analysis, backbone_identity
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.machine.devices import choose_device
from pipelines.units import percent

USUAL_ROWS = 256
UNITS = {
    "distance_px": "distance, px of the input",
    "entropy_nats": "entropy, nats",
    "kl_nats": "KL to the other heads, nats",
}
_FIRST_STRIDE_PX = 4


def attention(config: AnalyseConfig) -> Analysis:
    """Statistics of every block over centre crops, a panel for each of the weights.

    Raises UsageError for a backbone without attention over tokens or windows.
    """
    card = live_card(config)
    _require_attention(card)
    images = live_images(config, card)
    backbones = live_backbones(config, card, choose_device(config.device))
    _print_unfilled_windows(backbones[0], images.crop_px)
    keep = config.prefix == "keep"
    first = next(images.images(1))
    began = time.perf_counter()
    for backbone in backbones:
        image_sums(backbone, first, keep)
    seconds = time.perf_counter() - began
    source = sum(record.source_bytes for record in images.dataset.records) / max(1, len(images))
    rows = announced_rows(
        min(config.rows or USUAL_ROWS, len(images)),
        Cost(
            multiply_adds=lambda rows: rows * sum(_multiply_adds(b, images.crop_px) for b in backbones),
            bytes_read=lambda rows: rows * source,
            seconds=lambda rows: rows * seconds,
        ),
    )
    totals: list[dict[str, AttentionSums]] = [{} for _ in backbones]
    keys = []
    for image in images.images(rows):
        keys.append(image.key)
        for backbone, total in zip(backbones, totals, strict=True):
            for name, sums in image_sums(backbone, image, keep).items():
                total[name] = total[name] + sums if name in total else sums
    found = [{name: sums.means() for name, sums in total.items()} for total in totals]
    return _analysis(config, backbones, found, {"images": images.identity(), "keys": keys}, images.crop_px)


def image_sums(backbone: FrozenBackbone, image: LiveImage, keep_prefix: bool) -> dict[str, AttentionSums]:
    """Sums of every block over one image, by the block's name."""
    found: dict[str, AttentionSums] = {}
    card, network = backbone.card, backbone.network
    if isinstance(network, FoldedSwin) or card.is_swin:

        def of_windows(name: str, module: nn.Module, before: Tensor, after: Tensor) -> None:
            if name.startswith("s"):
                stride_px = stage_stride_px(name)
                if isinstance(module, FoldedBlock):
                    found[name] = window_attention_sums(module, before, stride_px)
                else:
                    found[name] = swin_v1_attention_sums(module, before, stride_px)

        visit_blocks(backbone, *image.batch, of_windows)
        return found
    trunk: Any = network.trunk
    grid = patch_grid(card, image.pixels_HW3.shape[0])
    names = {id(block.attn): f"b{number}" for number, block in enumerate(trunk.blocks, start=1)}
    given: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        given[names[id(module)]] = module, inputs, named

    handles = [block.attn.register_forward_pre_hook(keep, with_kwargs=True) for block in trunk.blocks]
    try:
        visit_blocks(backbone, *image.batch, lambda *_: None)
    finally:
        for handle in handles:
            handle.remove()
    for name, (module, inputs, named) in given.items():
        found[name] = token_attention_sums(
            attention_logits(module, *inputs, **named),
            grid=grid,
            prefix=prefix_tokens(trunk) or int(getattr(trunk, "num_prefix_tokens", 0) or 0),
            stride_px=card.multiple_px,
            keep_prefix=keep_prefix,
        )
    return found


def stage_stride_px(name: str) -> int:
    """Of a Swin's block.

    >>> stage_stride_px("s1.b2"), stage_stride_px("s3.b1")
    (4, 16)
    """
    return _FIRST_STRIDE_PX << (int(name[1 : name.index(".")]) - 1)


def _require_attention(card: BackboneCard) -> None:
    """Before weights are loaded. Raises UsageError."""
    if card.is_swin:
        return
    try:
        if card.family != PLAIN:
            raise NoGlobalAttention(f"{card.model} is no transformer: --kind kernels analyses convolutions")
        check_global(probe(card.timm_id, card.constructor_args), card.model)
    except NoGlobalAttention as error:
        raise UsageError(f"--kind attention: {error}") from None


def _print_unfilled_windows(backbone: FrozenBackbone, crop_px: int) -> None:
    """One line where windows do not divide a map: queries then attend to padding too."""
    card: BackboneCard = backbone.card
    unfilled = []
    for stage, window in enumerate(card.windows):
        side = -(-crop_px // (_FIRST_STRIDE_PX << stage))
        cut, _ = fit_windows(card.window_rule, (side, side), window, (0, 0))
        if padded_grid((side, side), cut) != (side, side):
            unfilled.append(f"stage {stage + 1} ({side}x{side} cells in windows of {cut[0]})")
    if unfilled:
        print(
            f"windows do not divide {', '.join(unfilled)}: part of the attention is on padding, reported as "
            f"leak; choose another --crop-size or --model-args.window_size"
        )


def _multiply_adds(backbone: FrozenBackbone, crop_px: int) -> int:
    # Late: counting builds the model once more, on the meta device.
    from extract.planning.backbone_costs import backbone_costs
    from stores.format.plan import Bin

    size = Bin(height_px=crop_px, width_px=crop_px, rows=1, shard_rows=1)
    return int(backbone_costs(backbone.card, [size])["multiply_adds"] or 0)


def _analysis(
    config: AnalyseConfig,
    backbones: list[FrozenBackbone],
    found: list[dict[str, LayerStatistics]],
    images: Mapping[str, Any],
    crop_px: int,
) -> Analysis:
    layers = list(found[0])
    of_weights = [
        {
            "backbone": backbone_identity(backbone, weights),
            "layers": {
                name: {field: getattr(layer, field) for field in LayerStatistics.__dataclass_fields__}
                for name, layer in layers_found.items()
            },
        }
        for backbone, weights, layers_found in zip(backbones, config.weights, found, strict=True)
    ]
    table = [
        {
            "weights": weights,
            "layer": name,
            "head": head,
            **{field: f"{getattr(layer, field)[head]:.6f}" for field in (*UNITS, "relative_entropy", "leak")},
        }
        for weights, layers_found in zip(config.weights, found, strict=True)
        for name, layer in layers_found.items()
        for head in range(len(layer.distance_px))
    ]
    panels = {
        f"{config.model}, {weights}": {
            field: [getattr(layer, field) for layer in layers_found.values()] for field in UNITS
        }
        for weights, layers_found in zip(config.weights, found, strict=True)
    }
    distances = [sum(layer.distance_px) / len(layer.distance_px) for layer in found[0].values()]
    leak = max(max(layer.leak) for each in found for layer in each.values())
    return Analysis(
        name=f"{(config.model or '').replace(':', '-')}-{images['images']['dataset']}",
        content={
            "kind": "attention",
            "weights": of_weights,
            **images,
            "rows": len(images["keys"]),
            "crop_px": crop_px,
            "prefix": config.prefix,
            "dtype": "float64 from the attention module's input on",
        },
        table=table,
        figure=draw_dots(panels, layers, UNITS, "block, from the input on"),
        sentence=f"attention of {len(images['keys'])} images of {crop_px} px: mean distance "
        f"{distances[0]:.1f} px in {layers[0]} to {distances[-1]:.1f} px in {layers[-1]}, at most "
        f"{percent(leak)} % of a head's attention left out",
    )
