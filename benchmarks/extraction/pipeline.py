r"""The whole pipeline of an extraction beside each of its stages alone, in one run, on a CPU or a GPU.

Made photographs of ADE20K's usual size are decoded, sent through a backbone with drawn weights, encoded and
written with fsync. On a GPU the limit is the slowest stage alone. On a CPU all stages share the cores: the
limit there is their processor time on all cores, or the disk. timm's own model stands beside ours, eager and
compiled, features only. Stages and pipeline take turns in each round; medians over the rounds are printed.

    python -m benchmarks.extraction.pipeline [--model swinv2-t] [--size 512] [--rows 64] \
        [--device auto] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.extraction.backbones import timm_forward
from benchmarks.extraction.forward_all import forward_all
from benchmarks.machine import processor_seconds
from benchmarks.rivals import compare, timed
from extract.backbones.frozen import PRECISIONS
from extract.backbones.loading import BackboneCard, FrozenBackbone, backbone_card, load_backbone
from extract.datasets import Dataset, open_dataset, view_recipe
from extract.extractor.batch_shapes import fit_batches
from extract.extractor.memory import encoded_row_bytes
from extract.extractor.row_loader import RowLoader, SourceDigests
from extract.extractor.run import Summary, extract
from extract.planning.plan import build_plan
from pipelines.demo.made.scenes import make_scene
from pipelines.forecast.disk_probe import write_shards
from pipelines.machine.devices import choose_device
from stores.format.plan import StorePlan
from stores.writing.writer import StoreWriter

GOAL = 0.9
"""Least share of the limit that the pipeline delivers."""
STAGES = ("decode", "backbone", "disk")
PHOTO_PX = (683, 512)
"""Width and height of a usual photograph of ADE20K."""


def write_photographs(root: Path, count: int) -> Path:
    """Scenes of the demo, enlarged, with grain, in the official layout. Returns the data set's folder."""
    folder, rng = root / "ADEChallengeData2016", np.random.default_rng(0)
    for kind in ("images", "annotations"):
        (folder / kind / "training").mkdir(parents=True)
    for number in range(count):
        scene, name = make_scene("training", number), f"ADE_train_{number + 1:08d}"
        rgb = np.asarray(Image.fromarray(scene.rgb).resize(PHOTO_PX, Image.Resampling.BICUBIC), np.float32)
        rgb = np.clip(rgb + 6 * rng.standard_normal(rgb.shape, np.float32), 0, 255).astype(np.uint8)
        labels = Image.fromarray(scene.labels + np.uint8(1)).resize(PHOTO_PX, Image.Resampling.NEAREST)
        Image.fromarray(rgb).save(folder / "images" / "training" / f"{name}.jpg", quality=92)
        labels.save(folder / "annotations" / "training" / f"{name}.png")
    return folder


def timm_rates(
    card: BackboneCard, plan: StorePlan, device: torch.device, precision: str, compiles: bool
) -> dict[str, float]:
    """Images/s of timm's own model as people write it, eager and compiled; nothing is encoded."""
    b = plan.bins[0]
    pixels = torch.randint(0, 256, (b.batch_rows or 1, b.height_px, b.width_px, 3), dtype=torch.uint8)
    ways = {"timm eager": False, **({"timm compiled": True} if compiles else {})}
    turns = {
        name: partial(timed, timm_forward(card, device, PRECISIONS[precision], pixels, compiled), device)
        for name, compiled in ways.items()
    }
    with torch.inference_mode():
        found = compare(turns, len(pixels), rounds=3, warm_up=3)
    return {name: 1e3 / figures["ms_an_image"] for name, figures in found.items()}


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and of them the seconds of all processors."""
    began, used = time.perf_counter(), processor_seconds()
    run()
    return time.perf_counter() - began, processor_seconds() - used


def decode_all(dataset: Dataset, plan: StorePlan, workers: int) -> None:
    loader = RowLoader(dataset, plan, SourceDigests())
    with ThreadPoolExecutor(workers) as pool:
        for row in range(len(plan.rows)):
            pool.submit(loader.load, row)


def pipeline(
    dataset: Dataset, plan: StorePlan, backbone: FrozenBackbone, root: Path, workers: int
) -> Summary:
    writer = StoreWriter.open_or_create(root, plan, needed_bytes=0)
    return extract(dataset, plan, backbone, writer, workers=workers)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(options.device)
    dataset = open_dataset("ade20k", write_photographs(folder, options.rows), "training")
    card = backbone_card(options.model)
    precision = options.precision or ("fp32" if device.type == "cpu" else "fp16")
    backbone = load_backbone(card, "random:0", device=device, precision=precision)
    plan = build_plan(
        dataset,
        view_recipe("ade20k", "ade20k", crop_size=options.size),
        card,
        weights_sha256=backbone.weights_sha256,
        precision=precision,
        batch_rows=options.batch or (4 if device.type == "cpu" else 32),
        codec=options.codec,
    )
    plan = fit_batches(plan, backbone)
    forward_all(backbone, plan)  # warms up; compiles
    rounds = [
        one_round(dataset, plan, backbone, folder / f"round-{n}", options) for n in range(options.rounds)
    ]
    stages = {
        stage: {
            "images_per_s": statistics.median(options.rows / r[stage][0] for r in rounds),
            "processor_ms": statistics.median(1e3 * r[stage][1] / options.rows for r in rounds),
        }
        for stage in (*STAGES, "pipeline")
    }
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "versions": f"torch {torch.__version__}, timm {version('timm')}",
        "model": f"{options.model} {precision} {options.size} px, batches of {plan.bins[0].batch_rows}",
        "row_mb": encoded_row_bytes(plan, plan.bins[0]) / 1e6,
        "rows": options.rows,
        "timm": timm_rates(card, plan, device, precision, not options.no_compile),
        "stages": stages,
        "limit": statistics.median(options.rows / _limit_seconds(device, r) for r in rounds),
        "share": statistics.median(_limit_seconds(device, r) / r["pipeline"][0] for r in rounds),
        "extra_processor_time": statistics.median(
            r["pipeline"][1] / sum(r[stage][1] for stage in STAGES) - 1 for r in rounds
        ),
        "least": GOAL,
    }


def one_round(
    dataset: Dataset, plan: StorePlan, backbone: FrozenBackbone, root: Path, options: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Stage -> seconds of all rows, and of all processors."""
    os.sync()
    found = {
        "decode": _timed(lambda: decode_all(dataset, plan, options.workers)),
        "backbone": _timed(lambda: forward_all(backbone, plan)),
        "disk": write_shards(plan, root / "disk", plan.bins[0].shards, 1 << 62)[1:],
    }
    os.sync()
    return found | {
        "pipeline": _timed(lambda: pipeline(dataset, plan, backbone, root / "pipeline", options.workers))
    }


def _limit_seconds(device: torch.device, stages: Mapping[str, tuple[float, float]]) -> float:
    """The least that all rows can take. On a CPU decoding, the backbone and the processor time of writing add
    up: each of the first two keeps every core busy by itself."""
    decode, backbone, (disk, disk_busy) = stages["decode"][0], stages["backbone"][0], stages["disk"]
    if device.type == "cpu":
        return max(decode + backbone + disk_busy / len(os.sched_getaffinity(0)), disk)
    return max(decode, backbone, disk)


def print_table(found: dict[str, Any]) -> None:
    print(f"{found['model']}, {found['row_mb']:.2f} MB a row, {found['rows']} rows, on {found['device']}")
    print(f"{found['cores']} cores, load {found['load']:.1f}, {found['versions']}\n")
    print(f"{'':44}{'images/s':>10}{'processor ms an image':>24}")
    for name, rate in found["timm"].items():
        print(f"{f'backbone alone, {name} (no codec)':44}{rate:10.2f}")
    names = {
        "backbone": "backbone and codec alone, ours",
        "decode": "decode and view alone",
        "disk": "disk write with fsync alone",
        "pipeline": "pipeline",
    }
    for stage, text in names.items():
        figures = found["stages"][stage]
        print(f"{text:44}{figures['images_per_s']:10.2f}{figures['processor_ms']:24.1f}")
    slowest = min(found["stages"][stage]["images_per_s"] for stage in STAGES)
    of_slowest = found["stages"]["pipeline"]["images_per_s"] / slowest
    verdict = "met" if found["share"] >= found["least"] else "MISSED"
    print(
        f"\nthe pipeline delivers {found['share']:.0%} of its limit of {found['limit']:.2f} images/s"
        f" (goal {found['least']:.0%}: {verdict}), {of_slowest:.0%} of its slowest stage alone,"
        f" for {found['extra_processor_time']:+.0%} of the stages' processor time"
    )
    if found["device"] == "cpu":
        print("on a GPU: not measured, none is at hand")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="swinv2-t")
    parser.add_argument("--size", type=int, default=512, help="side of a view in pixels")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument(
        "--batch", type=int, help="rows of a forward pass at 512 px; default: 4 or, on a GPU, 32"
    )
    parser.add_argument("--codec", default="int8")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true", help="leaves timm compiled out")
    parser.add_argument("--folder", type=Path, help="on the disk to write to; default: the temporary folder")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    logging.getLogger("extract").setLevel(logging.ERROR)  # drawn weights are meant here
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-extract-") as folder:
        found = measure(Path(folder), options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
