"""The whole pipeline of an extraction beside each of its stages alone, in one run, on a CPU or a GPU.

Made photographs of ADE20K's usual size are decoded, sent through a backbone with drawn weights, encoded and
written with fsync. The limit is the slowest stage alone. On a CPU decoding and the backbone take turns
on the same cores, so that the limit there is the two of them after each other, or the disk. Stages and
pipeline take turns in each round; medians over the rounds are told.

    python benchmarks/extract.py [--model swinv2-t] [--size 512] [--rows 64] [--device auto] [--json]
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __name__ != "__main__":
    raise ImportError(
        "this is the script benchmarks/extract.py: take its folder off sys.path to import extract"
    )
_HERE = Path(__file__).resolve().parent
# As a script's, this folder comes first there, and this file would stand for the package of its name.
sys.path = [folder for folder in sys.path if Path(folder).resolve() != _HERE]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from extract.backbones import FrozenBackbone, backbone_card, build_trunk, load_backbone  # noqa: E402
from extract.batch_shapes import fit_batches  # noqa: E402
from extract.codec_error import sample_steps  # noqa: E402
from extract.datasets import (  # noqa: E402
    Dataset,
    open_dataset,
    view_recipe,
)
from extract.encoded_batch import encode_batch, view_shape  # noqa: E402
from extract.extractor import Summary, extract  # noqa: E402
from extract.plan import build_plan  # noqa: E402
from extract.row_loader import RowLoader, SourceDigests  # noqa: E402
from pipelines.demo.scenes import make_scene  # noqa: E402
from pipelines.devices import choose_device  # noqa: E402
from pipelines.disk_probe import write_shards  # noqa: E402
from pipelines.speed_probe import noise_row  # noqa: E402
from stores.layout import ShardId, StorePlan  # noqa: E402
from stores.writer import StoreWriter  # noqa: E402

GOAL = 0.9
"""Least share of the limit that the pipeline delivers."""
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


def timm_rate(card: Any, plan: StorePlan, device: torch.device, precision: str) -> float:
    """Images/s of timm's own model, eager, as people write it; features only, nothing is encoded."""
    b = plan.bins[0]
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    trunk: Any = build_trunk(card).eval().to(device, dtype)
    x = torch.zeros((b.batch_rows or 1, 3, b.height_px, b.width_px), device=device, dtype=dtype)

    def run() -> None:
        with torch.inference_mode():
            trunk.forward_intermediates(x, intermediates_only=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return len(x) / _median_seconds(run)


def _median_seconds(run: Callable[[], object], times: int = 3) -> float:
    run()
    return statistics.median(_seconds(run) for _ in range(times))


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def decode_all(dataset: Dataset, plan: StorePlan, workers: int) -> None:
    loader = RowLoader(dataset, plan, SourceDigests())
    with ThreadPoolExecutor(workers) as pool:
        for row in range(len(plan.rows)):
            pool.submit(loader.load, row)


def forward_all(backbone: FrozenBackbone, plan: StorePlan) -> None:
    """As many batches as the plan has, of noise, with the codec and the way to the host."""
    b, steps = plan.bins[0], sample_steps(plan, ShardId(0, 0))
    shape = view_shape(plan, 0)
    rows, last = [noise_row(shape)] * (b.batch_rows or 1), None
    for _ in range(-(-b.rows // len(rows))):
        encoded = encode_batch(backbone, plan.codec, rows, shape, steps)
        if last is not None:
            last.wait()
        last = encoded
    if last is not None:
        last.wait()


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
    rates: dict[str, list[float]] = {name: [] for name in ("decode", "backbone", "disk", "pipeline")}
    bottlenecks = []
    for number in range(options.rounds):
        root = folder / f"round-{number}"
        os.sync()
        rates["decode"].append(options.rows / _seconds(lambda: decode_all(dataset, plan, options.workers)))
        rates["backbone"].append(options.rows / _seconds(lambda: forward_all(backbone, plan)))
        written, seconds = write_shards(plan, root / "disk", plan.bins[0].shards, 1 << 62)
        rates["disk"].append(options.rows / seconds)
        os.sync()
        summary = pipeline(dataset, plan, backbone, root / "pipeline", options.workers)
        rates["pipeline"].append(summary.images_per_s)
        bottlenecks.append(summary.bottleneck)
    limits = [
        _limit(device, *each)
        for each in zip(*(rates[s] for s in ("decode", "backbone", "disk")), strict=True)
    ]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "model": f"{options.model} {precision} {options.size} px, batches of {plan.bins[0].batch_rows}",
        "row_mb": written / options.rows / 1e6,
        "timm_eager": timm_rate(card, plan, device, precision),
        **{name: statistics.median(values) for name, values in rates.items()},
        "limit": statistics.median(limits),
        "share": statistics.median(r / limit for r, limit in zip(rates["pipeline"], limits, strict=True)),
        "bottleneck": statistics.mode(bottlenecks),
        "least": GOAL,
    }


def _limit(device: torch.device, decode: float, backbone: float, disk: float) -> float:
    """Images/s that no pipeline of these stages can exceed."""
    if device.type == "cpu":
        return min(1 / (1 / decode + 1 / backbone), disk)
    return min(decode, backbone, disk)


def print_table(found: dict[str, Any]) -> None:
    print(f"{found['model']}, {found['row_mb']:.2f} MB a row, on {found['device']}")
    print(f"{found['cores']} cores, load {found['load']:.1f}\n")
    names = {
        "timm_eager": "backbone alone, timm eager (no codec)",
        "backbone": "backbone and codec alone, ours",
        "decode": "decode and view alone",
        "disk": "disk write with fsync alone",
        "limit": "limit of the pipeline",
        "pipeline": "pipeline",
    }
    for name, text in names.items():
        print(f"{text:40}{found[name]:10.2f} images/s")
    verdict = "met" if found["share"] >= found["least"] else "MISSED"
    print(
        f"\nthe pipeline delivers {found['share']:.0%} of its limit (goal {found['least']:.0%}: {verdict});"
        f" most time went to {found['bottleneck']}"
    )


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
