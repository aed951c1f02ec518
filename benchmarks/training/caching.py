"""What caching saves: a step on cached features, on deep ones, and on live ones, ours and timm's, in turns.

`cached` dequantises int8 rows of all levels; `deep` dequantises p4 and p5 and recomputes p2 and p3 by the
first stages; `ours online` and `timm online` send the pixels through the whole backbone. All train the same
head on the same crops; decoding, which every way but `cached` needs too, is left out. Medians of the clock on
a GPU, of the processor time on a CPU. "break even" is after how many epochs the extraction, with its codec,
has paid for itself beside `ours online`. Weights are drawn: speed does not depend on them.

    python -m benchmarks.training.caching [--model swinv2-b] [--size 512] [--batch 16] \
        [--heads linear,bifpn5] [--device cuda] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import conditions, print_conditions
from benchmarks.training.steps import CLASSES, step_of
from benchmarks.training.video_heads import measure, timm_model
from extract.backbones.frozen import PRECISIONS
from extract.backbones.loading import FrozenBackbone, backbone_card, default_precision, load_backbone
from extract.codecs.on_device import encode
from pipelines.feed.store_feed import Batch
from pipelines.feed.transfer import dequantise
from pipelines.tasks import task_of

SHALLOW = 2
"""Levels that `deep` recomputes, the finest ones."""


class Ways:
    """The ways to the features of one batch of crops."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.card = backbone_card(options.model)
        levels = self.card.pyramid.names
        self.backbone = load_backbone(self.card, "random:0", device=self.device)
        shallow = backbone_card(options.model, {}, levels[:SHALLOW])
        self.first_stages = load_backbone(shallow, "random:0", device=self.device)
        self.dtype = PRECISIONS[default_precision(self.device)]
        self.timm = timm_model(self.card, self.device, self.dtype)
        shape = (options.batch, options.size, options.size, 3)
        generator = torch.Generator().manual_seed(0)
        self.pixels = self._host(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
        self.valid_hw = [(options.size, options.size)] * options.batch
        self.encoded = {
            level: {name: self._host(part.cpu()) for name, part in parts.items()}
            for level, parts in self.extract().items()
        }
        made = task_of("segmentation").made_targets(
            options.batch, (options.size, options.size), CLASSES, generator
        )
        self.targets = [{name: value.to(self.device) for name, value in row.items()} for row in made]

    def extract(self) -> dict[str, dict[str, Tensor]]:
        """The backbone and its codec."""
        found = self.backbone(self.pixels, torch.tensor(self.valid_hw))
        return {level: encode("int8", x_NHWC) for level, x_NHWC in found.items()}

    def cached(self) -> dict[str, Tensor]:
        return self._dequantised(self.card.pyramid.names)

    def deep(self) -> dict[str, Tensor]:
        return self._live(self.first_stages) | self._dequantised(self.card.pyramid.names[SHALLOW:])

    def online(self) -> dict[str, Tensor]:
        return self._live(self.backbone)

    def timm_online(self) -> dict[str, Tensor]:
        """As people write it: float pixels, no autocast, no gradient."""
        x_NCHW = self.pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1
        with torch.no_grad():
            maps = self.timm.forward_intermediates(x_NCHW, intermediates_only=True)
        return {level: x.float() for level, x in zip(self.card.pyramid.names, maps, strict=True)}

    def _live(self, backbone: FrozenBackbone) -> dict[str, Tensor]:
        found = backbone(self.pixels, torch.tensor(self.valid_hw))
        # Cloned: out of inference mode.
        return {level: x_NHWC.float().clone().permute(0, 3, 1, 2) for level, x_NHWC in found.items()}

    def _dequantised(self, levels: tuple[str, ...]) -> dict[str, Tensor]:
        return {
            level: dequantise(
                "int8",
                {n: part.to(self.device, non_blocking=True) for n, part in self.encoded[level].items()},
            )
            for level in levels
        }

    def _host(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def bench(head: str, ways: Ways, rounds: int) -> dict[str, Any]:
    """Way -> ms a step, and what follows from them."""
    step = step_of(head, ways.device, pyramid=ways.card.pyramid)
    names = tuple(map(str, range(len(ways.valid_hw))))

    def training_on(features: Callable[[], Mapping[str, Tensor]]) -> Callable[[], None]:
        return lambda: step(
            Batch(features=dict(features()), targets=ways.targets, valid_hw=ways.valid_hw, keys=names)
        )

    found = measure(
        {
            "cached": training_on(ways.cached),
            "deep": training_on(ways.deep),
            "ours online": training_on(ways.online),
            "timm online": training_on(ways.timm_online),
            "extraction": lambda: ways.extract() and None,
        },
        rounds,
        ways.device,
    )
    saved = found["ours online"] - found["cached"]
    return {f"{way}_ms": milliseconds for way, milliseconds in found.items()} | {
        "ours online / cached": found["ours online"] / found["cached"],
        "timm online / cached": found["timm online"] / found["cached"],
        "break even, epochs": found["extraction"] / saved if saved > 0 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--model", default="swinv2-b" if gpu else "swinv2-t")
    parser.add_argument("--size", type=int, default=512 if gpu else 256, help="side of a crop in pixels")
    parser.add_argument("--batch", type=int, default=16 if gpu else 2)
    parser.add_argument("--heads", type=lambda t: t.split(","), default=["linear", "fpn", "bifpn5"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--json", action="store_true", help="a line a head, as soon as it is measured")
    options = parser.parse_args()
    logging.getLogger("extract").setLevel(logging.ERROR)  # drawn weights are what is wanted here
    ways = Ways(options)
    if not options.json:
        print_conditions(conditions(Path.cwd()))
        unit = "ms by the clock" if ways.device.type == "cuda" else "processor ms"
        print(f"{options.model}, {options.size} px, batch {options.batch}, {unit} a step\n")
        print(
            "| head | cached | deep | ours online | timm online | ours / cached | extraction | break even |"
        )
        print("|---|---|---|---|---|---|---|---|")
    for head in options.heads:
        found = bench(head, ways, options.rounds)
        if options.json:
            print(json.dumps({head: found}), flush=True)
            continue
        epochs = found["break even, epochs"]
        print(
            f"| {head} | {found['cached_ms']:.0f} | {found['deep_ms']:.0f} | {found['ours online_ms']:.0f} | "
            f"{found['timm online_ms']:.0f} | {found['ours online / cached']:.2f} | "
            f"{found['extraction_ms']:.0f} | {'never' if epochs is None else f'{epochs:.2f} epochs'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
