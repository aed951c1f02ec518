"""Depth-wise kernels of a convolutional network: distance, entropy and KL of channels, from weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extract.analysis.kernel_statistics import (
    DepthwiseLayer,
    depthwise_layers,
    kernel_statistics,
    layers_of_state,
)
from extract.backbones.checkpoints import tensors_of_file
from extract.backbones.loading import load_backbone
from extract.backbones.timm_pyramid import TimmMaps
from extract.swin.timm_swin import probe
from pipelines.analyses.live_images import live_card
from pipelines.analyses.pictures.dots import draw_dots
from pipelines.analyses.written import Analysis
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError

UNITS = {
    "distance_px": "distance, px of the input",
    "entropy_nats": "entropy, nats",
    "kl_nats": "KL to the other channels, nats",
}


def kernels(config: AnalyseConfig) -> Analysis:
    """Statistics of every depth-wise layer with kernels of 5 and more, a panel for each of the weights.

    Raises UsageError where the network or the file has none.
    """
    found: dict[str, list[tuple[DepthwiseLayer, Any]]] = {}
    digests = {}
    for weights in config.weights:
        layers, digests[weights] = _layers(config, weights)
        found[weights] = [(layer, kernel_statistics(layer, config.kernel)) for layer in layers]
    each = list(found.values())
    names = [f"{number}" for number in range(1, len(each[0]) + 1)]
    if len({len(of) for of in each}) > 1:
        raise UsageError("--weights: the files have different numbers of depth-wise layers")
    count = sum(len(layer.weight_Cyx) for layer, _ in each[0])
    products = sum(layer.weight_Cyx.numel() for of in each for layer, _ in of)
    print(f"cost: {products / 1e6:.3g} M weights, no images")
    distances = [sum(statistics.distance_px) / len(statistics.distance_px) for _, statistics in each[0]]
    name = config.model or Path(config.weights[0]).stem
    return Analysis(
        name=name.replace(":", "-"),
        content={
            "kind": "kernels",
            "model": config.model,
            "weights_sha256": digests,
            "shares": config.kernel,
            "dtype": "float64",
            "weights": {
                weights: [
                    {
                        "layer": layer.name,
                        "kernel": list(layer.weight_Cyx.shape[1:]),
                        "stride_px": layer.stride_px,
                        "entropy_limit": statistics.entropy_limit,
                        **{field: getattr(statistics, field) for field in UNITS},
                    }
                    for layer, statistics in of
                ]
                for weights, of in found.items()
            },
        },
        table=[
            {
                "weights": weights,
                "layer": layer.name,
                "channel": channel,
                **{field: f"{getattr(statistics, field)[channel]:.6f}" for field in UNITS},
            }
            for weights, of in found.items()
            for layer, statistics in of
            for channel in range(len(layer.weight_Cyx))
        ],
        figure=draw_dots(
            {
                f"{config.model or 'RepLKNet'}, {weights}": {
                    field: [getattr(statistics, field) for _, statistics in of] for field in UNITS
                }
                for weights, of in found.items()
            },
            names,
            UNITS,
            "depth-wise layer, from the input on",
            {"entropy_nats": [statistics.entropy_limit for _, statistics in each[0]]},
        ),
        sentence=f"kernels of {len(names)} depth-wise layers, {count} channels: mean distance "
        f"{distances[0]:.1f} px in the first to {distances[-1]:.1f} px in the last",
    )


def _layers(config: AnalyseConfig, weights: str) -> tuple[list[DepthwiseLayer], str | None]:
    """Layers and the digest of the weights; None for a file without a model."""
    if config.model is None:
        if weights == "timm" or weights.startswith("random:"):
            raise UsageError("--kind kernels: pass --model, or --weights with a RepLKNet file")
        try:
            return layers_of_state(tensors_of_file(Path(weights))), None
        except ValueError as error:
            raise UsageError(f"--weights {weights}: {error}") from None
    card = live_card(config)
    if not depthwise_layers(probe(card.timm_id, card.constructor_args)):  # before weights are loaded
        raise UsageError(
            f"--kind kernels: {config.model} has no depth-wise convolutions of 5x5 or more, such as "
            f"timm:convnext_tiny has; --kind attention analyses transformers"
        )
    backbone = load_backbone(card, weights, precision="fp32", compiled=False)
    assert isinstance(backbone.network, TimmMaps)
    layers = depthwise_layers(backbone.network.trunk)
    return layers, backbone.weights_sha256
