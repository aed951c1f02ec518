"""Backbones alone: timm as people write it, timm compiled, ours, ours compiled; one run, in turns.

Each gets the same batch on its device: timm normalised float pixels, ours uint8 pixels, which it normalises.
The medians of the rounds are told in milliseconds an image, with the processors' time, and how many times as
fast as timm eager each is, round by round. Weights are those of a new model: drawn ones may ask for float32
in places (see extract.precision), and else speed does not depend on them. What an extraction runs is `ours`
on a CPU and `ours compiled` on a GPU.

    python -m benchmarks.backbones [--models swinv2-t,swinv2-b] [--sizes 512] [--batch 2] [--no-compile]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import timm
import torch

from extract.backbones import BackboneCard, backbone_card, build_trunk, default_precision
from extract.frozen_backbone import PRECISIONS, FrozenBackbone
from extract.weights import Weights

RIVALS = ("timm eager", "timm compiled", "ours", "ours compiled")
GOALS = {
    "cpu": {"ours": 1.15},
    "cuda": {"ours compiled": 2.5},
}
"""Least speed over timm eager, SwinV2-T at 512 px; on a GPU also 1.08 over timm compiled."""
WARM_UP_ROUNDS = 3
"""To compile, to fill caches, to grow pools and to record launches."""


def timm_forward(
    card: BackboneCard, device: torch.device, dtype: torch.dtype, pixels: torch.Tensor, compiled: bool
) -> Callable[[], object]:
    """timm's own model, as people run it: its padding, all four levels, weights and pixels in `dtype`."""
    model: Any = timm.create_model(card.timm_id, num_classes=0, **card.constructor_args)
    model = model.eval().to(device, dtype)
    x = pixels.to(device).permute(0, 3, 1, 2).to(dtype).contiguous()

    def forward() -> object:
        return model.forward_intermediates(x, intermediates_only=True)

    return torch.compile(forward) if compiled else forward


def our_forward(
    card: BackboneCard, device: torch.device, precision: str, pixels: torch.Tensor, compiled: bool
) -> Callable[[], object]:
    weights = Weights(build_trunk(card).state_dict(), sha256="untrained")
    backbone = FrozenBackbone(card, weights, device=device, precision=precision, compiled=compiled)
    on_device, valid = pixels.to(device), torch.tensor([pixels.shape[1:3]] * len(pixels))
    return lambda: backbone(on_device, valid)


def measure(
    rivals: dict[str, Callable[[], object]], images: int, rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Rival -> ms an image (median, least, processor time) and speed relative to the first one, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    busy: dict[str, list[float]] = {name: [] for name in rivals}
    with torch.inference_mode():
        for number in range(rounds + WARM_UP_ROUNDS):
            for name, forward in rivals.items():
                began, used = time.perf_counter(), time.process_time()
                forward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= WARM_UP_ROUNDS:
                    seconds[name].append(time.perf_counter() - began)
                    busy[name].append(time.process_time() - used)
    first = seconds[next(iter(rivals))]
    return {
        name: {
            "ms_an_image": statistics.median(times) / images * 1e3,
            "least_ms_an_image": min(times) / images * 1e3,
            "processor_ms_an_image": statistics.median(busy[name]) / images * 1e3,
            "speed": statistics.median(f / t for f, t in zip(first, times, strict=True)),
        }
        for name, times in seconds.items()
    }


def bench(model: str, size_px: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    card, device = backbone_card(model), torch.device(options.device)
    precision = options.precision or default_precision(device)
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch, size_px, size_px, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    rivals: dict[str, Callable[[], object]] = {}
    for name in RIVALS:
        compiled = name.endswith("compiled")
        if compiled and options.no_compile:
            continue
        if name.startswith("timm"):
            rivals[name] = timm_forward(card, device, PRECISIONS[precision], pixels, compiled)
        else:
            rivals[name] = our_forward(card, device, precision, pixels, compiled)
    return measure(rivals, options.batch, options.rounds, device)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="swinv2-t", help="names, with commas")
    parser.add_argument("--sizes", default="512", help="sides in pixels, with commas")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--no-compile", action="store_true", help="leave out what needs a compiler")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def conditions(options: argparse.Namespace) -> str:
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    load = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return (
        f"{where}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load {load}; torch "
        f"{torch.__version__}, timm {timm.__version__}; batch {options.batch}, {options.rounds} rounds"
    )


def main() -> None:
    options = parse(sys.argv[1:])
    logging.getLogger("extract.weights").setLevel(logging.ERROR)  # random weights are what is wanted here
    print(conditions(options), file=sys.stderr if options.json else sys.stdout)
    table = {
        f"{model} {size}": bench(model, int(size), options)
        for model in options.models.split(",")
        for size in options.sizes.split(",")
    }
    if options.json:
        print(json.dumps(table))
        return
    print(f"{'':24}{'ms an image':>14}{'least':>10}{'processor':>11}{'speed':>8}")
    for case, rivals in table.items():
        print(case)
        for name, figures in rivals.items():
            goal = GOALS[options.device.split(":")[0]].get(name) if case == "swinv2-t 512" else None
            note = f"  goal {goal}" if goal else ""
            print(
                f"  {name:22}{figures['ms_an_image']:14.1f}{figures['least_ms_an_image']:10.1f}"
                f"{figures['processor_ms_an_image']:11.1f}{figures['speed']:8.2f}{note}"
            )
    if not options.device.startswith("cuda"):
        print(
            "on a GPU (goals: 2.5 times timm eager, 1.08 times timm compiled): not measured, none is at hand"
        )


if __name__ == "__main__":
    main()
