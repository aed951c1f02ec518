r"""A training step of a video head: cached features, and the live backbone, timm's and ours, in one run.

Decoding is left out of the three steps, which take turns: a batch of int8 features in host memory goes to
the device, is made float32 and trains the head; or a batch of uint8 clips goes there, through the backbone
frame by frame, and trains the same head. Beside them stand the head alone, the decoding of a clip on one
core, and on a GPU the memory that a step takes beyond weights. Medians of the rounds; on a CPU processor
time, which other work does not lengthen. Weights are drawn: speed does not depend on them.

    python -m benchmarks.training.video_heads [--models swinv2-b,swinv2-l] [--head global4] \
        [--batch 64] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from extract.backbones.frozen import PRECISIONS
from extract.backbones.loading import BackboneCard, backbone_card, default_precision, load_backbone
from extract.datasets import Record, view_recipe
from extract.decoding.video_media import Videos
from extract.views.clip_view import CLIP_FRAMES
from heads import build_head
from pipelines.config import OptimizerConfig
from pipelines.demo.made.clips import write_video
from pipelines.feed.transfer import dequantise
from pipelines.machine.devices import autocast
from pipelines.training.optimisation.optimizer import build_optimizer
from stores.codecs import codec

CLASSES = 400
GOALS = {
    "swinv2-b": {"timm online": 7.0, "ours online": 5.0},
    "swinv2-l": {"timm online": 6.0, "ours online": 5.0},
}
"""Times as fast as which the cached step has to be, on a GPU at 16 frames of 256 px."""
WARM_UP_ROUNDS = 2
SOURCE_HW = (256, 340)
"""Of Kinetics' usual files."""


class Steps:
    """The three steps of one backbone and head, on the same batch."""

    def __init__(self, model: str, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.precision = default_precision(self.device)
        self.card = backbone_card(model, {}, ("p5n",), "cover")
        self.backbone = load_backbone(self.card, "random:0", device=self.device)
        self.head = build_head(options.head, "video", self.card.pyramid, CLASSES, seed=0).to(self.device)
        self.optimizer = build_optimizer(self.head, OptimizerConfig(lr=1e-4))
        self.timm = timm_model(self.card, self.device, PRECISIONS[self.precision])
        generator = torch.Generator().manual_seed(0)
        shape = (options.batch, options.frames, options.size, options.size, 3)
        self.clips = self._host(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
        labels = torch.randint(0, CLASSES, (options.batch,), generator=generator).to(self.device)
        self.targets = [{"label": label} for label in labels]
        self.valid_hw = [(options.size, options.size)] * options.batch
        features = self.ours_features().movedim(1, -1).cpu().numpy()
        encoded = codec("int8").encode(features)
        self.encoded = {name: self._host(torch.from_numpy(part)) for name, part in encoded.items()}

    def _host(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def cached_features(self) -> Tensor:
        on_device = {name: part.to(self.device, non_blocking=True) for name, part in self.encoded.items()}
        return dequantise("int8", on_device)

    def ours_features(self) -> Tensor:
        frames = self.clips.flatten(0, 1)
        sizes = torch.tensor([self.valid_hw[0]]).expand(len(frames), 2)
        x_MyxC = self.backbone(frames, sizes)["p5n"].float().clone()  # clone: out of inference mode
        return x_MyxC.view(*self.clips.shape[:2], *x_MyxC.shape[1:]).movedim(-1, 1)

    def timm_features(self) -> Tensor:
        """As people write it: float pixels, autocast-free low precision, no gradient."""
        pixels = self.clips.flatten(0, 1).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        with torch.no_grad():
            x_MyxC = self.timm.forward_features(pixels.to(PRECISIONS[self.precision]) / 127.5 - 1).float()
        return x_MyxC.view(*self.clips.shape[:2], *x_MyxC.shape[1:]).movedim(-1, 1)

    def train(self, features: Tensor) -> None:
        with autocast(self.device, self.device.type == "cuda"):
            losses = self.head.losses(
                {"p5n": features}, self.targets, self.valid_hw, torch.Generator(self.device).manual_seed(0)
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss_cls"].backward()
        self.optimizer.step()

    def rivals(self) -> dict[str, Callable[[], None]]:
        kept = self.cached_features()
        return {
            "cached": lambda: self.train(self.cached_features()),
            "head alone": lambda: self.train(kept),
            "ours online": lambda: self.train(self.ours_features()),
            "timm online": lambda: self.train(self.timm_features()),
        }


def timm_model(card: BackboneCard, device: torch.device, dtype: torch.dtype) -> Any:
    model: Any = timm.create_model(card.timm_id, num_classes=0, **card.constructor_args)
    return model.eval().requires_grad_(False).to(device, dtype)


def measure(rivals: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, float]:
    """Rival -> median ms, in turns: of the clock on a GPU, of the processors on a CPU."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + WARM_UP_ROUNDS):
        for name, step in rivals.items():
            began = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= WARM_UP_ROUNDS:
                seconds[name].append(clock() - began)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """The most that a step takes on a GPU beyond what is there already: weights, moments, a batch."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def decoding_ms(size: int, clips: int = 4) -> float:
    """From the bytes of a video file to the pixels of a training view, median, with one decoder."""
    rng, times = np.random.default_rng(0), []
    pictures = rng.integers(0, 256, (18, *SOURCE_HW, 3), dtype=np.uint8)
    recipe, videos = view_recipe("k400", "k400", crop_size=size), Videos()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, pictures)
        data = path.read_bytes()
    record = Record("clip", len(data), SOURCE_HW, frames=72, fps=25.0)
    for number in range(clips + 1):
        began = time.perf_counter()
        videos.render(data, record, [recipe.view("k400", record, number, 0)])
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[1:])  # the first starts the decoder


def bench(model: str, options: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(model, options)
    rivals = steps.rivals()
    found = measure(rivals, options.rounds, steps.device)
    table: dict[str, Any] = {
        name: {"ms": milliseconds, "cached_is_faster": milliseconds / found["cached"]}
        for name, milliseconds in found.items()
    }
    table["decoding a clip"] = {"ms": decoding_ms(options.size)}
    table["batch"] = {"bytes": sum(part.nbytes for part in steps.encoded.values())}
    if steps.device.type == "cuda":
        table["cached"]["peak_bytes"] = peak_bytes(rivals["cached"], steps.device)
        table["head alone"]["peak_bytes"] = peak_bytes(rivals["head alone"], steps.device)
    return table


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--models", default="swinv2-b,swinv2-l", help="names, with commas")
    parser.add_argument("--head", default="global4")
    parser.add_argument("--batch", type=int, default=64 if on_gpu else 1)
    parser.add_argument("--size", type=int, default=256, help="side of a frame in pixels")
    parser.add_argument("--frames", type=int, default=CLIP_FRAMES)
    parser.add_argument("--rounds", type=int, default=10 if on_gpu else 3)
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def conditions(options: argparse.Namespace) -> str:
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU, processor time"
    load = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return (
        f"{where}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load {load}; torch "
        f"{torch.__version__}, timm {timm.__version__}; {options.head}, batch {options.batch} of "
        f"{options.frames} frames at {options.size} px, {options.rounds} rounds"
    )


def main() -> None:
    options = parse(sys.argv[1:])
    logging.getLogger("extract.backbones.weights").setLevel(
        logging.ERROR
    )  # drawn weights are what is wanted here
    print(conditions(options), file=sys.stderr if options.json else sys.stdout)
    tables = {model: bench(model, options) for model in options.models.split(",")}
    if options.json:
        print(json.dumps(tables))
        return
    for model, table in tables.items():
        print(f"{model}, {table.pop('batch')['bytes'] / 1e6:.1f} MB of features a batch")
        for name, figures in table.items():
            faster = (
                f"  cached is {figures['cached_is_faster']:.2f} x" if "cached_is_faster" in figures else ""
            )
            goal = GOALS.get(model, {}).get(name)
            note = f"  goal on a GPU {goal:g} x" if goal else ""
            peak = f"  peak {figures['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in figures else ""
            print(f"  {name:16}{figures['ms']:12.1f} ms{faster}{note}{peak}")
    if not options.device.startswith("cuda"):
        print("the goals are for a GPU: not measured, none is at hand")


if __name__ == "__main__":
    main()
