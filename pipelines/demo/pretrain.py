"""Trains swinv2-nano, the demo's backbone, to name the class that fills an image: no masks, no pixel loss.

    python -m pipelines.demo.pretrain --out extract/bundled/swinv2_nano.safetensors

A training image is a crop of a made scene in which one class covers most of the area, and its only target is
that class: label maps choose and name the crops, but no loss is ever taken per pixel. Each of the four stages
is pooled over the whole image and classified, as in deeply supervised nets (Lee et al., AISTATS 2015), so
that the shallow levels are useful too. The scenes are of a split of their own that the demo never shows.
Every step draws the window rule, so that the bundled file serves both; `--window-rule` trains for one.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from extract.backbones.loading import BackboneCard, backbone_card, build_trunk
from extract.swin.timm_swin import set_window_rule
from extract.swin.window_rule import WindowRule
from pipelines.demo.made.scenes import CLASS_LABELS, Scene, make_scene
from pipelines.demo.made.textures import generator

logger = logging.getLogger(__name__)

SPLIT = "pretraining"
CROP_PX = 64
SIDES_PX = (28, 80)
"""Sides of the squares that are cut from scenes, before they are zoomed."""
ZOOMS = (0.75, 1.6)
MIN_SHARE = 0.75
"""Of the crop's area, that its class covers."""
CROPS_A_SCENE = 40
"""Random squares tried in each scene; those that one class fills are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """How long and how to train; the defaults made the bundled file."""

    scenes: int = 3000
    """Scenes to cut crops from."""
    steps: int = 3200
    """Optimiser steps; the two window rules share them."""
    batch_size: int = 64
    """Crops of a step."""
    lr: float = 2e-3
    """Peak of AdamW's learning rate: warmed up over 50 steps, then a cosine to 0."""
    weight_decay: float = 0.05
    """Of matrices only."""
    seed: int = 0
    """Of the first weights, the crops and their augmentation, and the rule of each step."""
    window_rules: tuple[WindowRule, ...] = get_args(WindowRule)
    """Every step draws one of them."""


@dataclass(frozen=True, slots=True)
class Square:
    """A crop that one class fills."""

    scene: int
    y: int
    x: int
    side: int


class StageClassifiers(nn.Module):
    """Class scores of the whole image from each stage: LayerNorm, mean over all cells, linear."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)
        self.classifiers = nn.ModuleList(nn.Linear(width, len(CLASS_LABELS)) for width in channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Stages (N, C, y, x) -> one (N, classes) each."""
        parts = zip(stages, self.norms, self.classifiers, strict=True)
        return [classify(norm(x_NCyx.permute(0, 2, 3, 1)).mean((1, 2))) for x_NCyx, norm, classify in parts]


def single_class_squares(scenes: Sequence[Scene], rng: np.random.Generator) -> list[list[Square]]:
    """Random squares of the scenes that one class nearly fills, by class in the order of CLASS_LABELS."""
    index = np.full(256, len(CLASS_LABELS))
    index[list(CLASS_LABELS.values())] = range(len(CLASS_LABELS))
    found: list[list[Square]] = [[] for _ in CLASS_LABELS]
    for number, scene in enumerate(scenes):
        classes = index[scene.labels]
        height, width = classes.shape
        for _ in range(CROPS_A_SCENE):
            side = int(rng.integers(SIDES_PX[0], SIDES_PX[1] + 1))
            y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            counts = np.bincount(classes[y : y + side, x : x + side].ravel(), minlength=len(found))
            if counts.max() >= MIN_SHARE * side * side:
                found[int(counts.argmax())].append(Square(number, y, x, side))
    return found


def batches(
    scenes: Sequence[Scene], squares: Sequence[Sequence[Square]], size: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Endless batches: RGB float32 (N, 64, 64, 3) in 0..1 and class indices (N,), classes equally often."""
    while True:
        classes = rng.integers(len(squares), size=size)
        chosen = [squares[k][int(rng.integers(len(squares[k])))] for k in classes.tolist()]
        crops = np.stack([_zoomed(_cut(scenes[s.scene], s), rng) for s in chosen])
        yield _recoloured(crops.astype(np.float32) / np.float32(255), rng), classes


def _cut(scene: Scene, square: Square) -> npt.NDArray[np.uint8]:
    return scene.rgb[square.y : square.y + square.side, square.x : square.x + square.side]


def _zoomed(rgb: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A crop at another scale, mirrored at times, cut or mirrored out to CROP_PX."""
    side = max(CROP_PX // 2, round(len(rgb) * rng.uniform(*ZOOMS)))
    rgb = np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR))
    if side < CROP_PX:
        before, after = (CROP_PX - side) // 2, CROP_PX - side - (CROP_PX - side) // 2
        rgb = np.pad(rgb, ((before, after), (before, after), (0, 0)), mode="symmetric")
    else:
        y, x = rng.integers(side - CROP_PX + 1, size=2)
        rgb = rgb[y : y + CROP_PX, x : x + CROP_PX]
    return rgb[:, ::-1] if rng.random() < 0.5 else rgb


def _recoloured(rgb: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Channels in any order, other contrast, brightness and tint: (N, H, W, 3) in 0..1."""
    count = len(rgb)
    orders = np.stack([rng.permutation(3) for _ in range(count)])
    rgb = np.take_along_axis(rgb, orders[:, None, None, :], axis=3)
    gains = rng.uniform(0.7, 1.4, (count, 1, 1, 1)) * rng.uniform(0.85, 1.15, (count, 1, 1, 3))
    offsets = rng.uniform(-0.15, 0.15, (count, 1, 1, 1))
    return np.clip(rgb * gains + offsets, 0, 1).astype(np.float32)


def pretrain(settings: Pretraining, card: BackboneCard) -> dict[str, Tensor]:
    """The trained trunk's weights as timm names them, float16; equal bytes for equal settings and machine."""
    rng = generator("pretrain", settings.seed)
    scenes = [make_scene(SPLIT, number) for number in range(settings.scenes)]
    squares = single_class_squares(scenes, rng)
    if missing := [name for name, found in zip(CLASS_LABELS, squares, strict=True) if not found]:
        raise ValueError(f"{settings.scenes} scenes hold no crop filled by {', '.join(missing)}: make more")
    logger.info("%d scenes, %d crops", len(scenes), sum(map(len, squares)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        trunk = build_trunk(card)
        classifiers = StageClassifiers([level.channels for level in card.pyramid])
    _train(trunk, classifiers, batches(scenes, squares, settings.batch_size, rng), settings, card)
    weights = {name: value.detach().half().contiguous() for name, value in trunk.state_dict().items()}
    return dict(sorted(weights.items()))


def _train(
    trunk: Any,
    classifiers: StageClassifiers,
    data: Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
    settings: Pretraining,
    card: BackboneCard,
) -> None:
    parameters = [*trunk.parameters(), *classifiers.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    mean, std = torch.tensor(card.mean), torch.tensor(card.std)
    rules = generator("pretrain-window-rules", settings.seed)
    began, right = time.perf_counter(), 0.0
    for step in range(1, settings.steps + 1):
        rgb, classes = next(data)
        set_window_rule(trunk, settings.window_rules[int(rules.integers(len(settings.window_rules)))])
        x_NCHW = ((torch.from_numpy(rgb) - mean) / std).permute(0, 3, 1, 2)
        target = torch.from_numpy(classes)
        stages = trunk.forward_intermediates(x_NCHW, intermediates_only=True)
        scores = classifiers(stages)
        loss = torch.stack([F.cross_entropy(each, target) for each in scores]).sum()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        right += 0.05 * (float((scores[-1].argmax(1) == target).float().mean()) - right)
        if step % 100 == 0 or step == settings.steps:
            seconds = time.perf_counter() - began
            logger.info("step %d loss %.3f, %.0f %% right, %.0f s", step, loss.detach(), 100 * right, seconds)


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate."""
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))


def main(arguments: Sequence[str] | None = None) -> None:
    defaults = Pretraining()
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo.pretrain", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    for name in ("scenes", "steps", "batch_size", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument(
        "--window-rule",
        choices=(*get_args(WindowRule), "both"),
        default="both",
        help="of Swin's windows; both: every step draws one",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the processor; the last bits depend on it")
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    out, threads, rule = given.pop("out"), given.pop("threads"), given.pop("window_rule")
    given["window_rules"] = get_args(WindowRule) if rule == "both" else (rule,)
    torch.set_num_threads(threads)
    weights = pretrain(Pretraining(**given), backbone_card("swinv2-nano"))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out)
    logger.info("wrote %s, %.2f MB", out, out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
