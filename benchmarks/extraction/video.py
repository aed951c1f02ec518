r"""Extraction of videos: listing, decoding, backbone and disk alone, and all of them together, in one run.

Made clips of the usual size of Kinetics-400 (340x256 pixels, 300 frames, a key frame every 250) are listed,
decoded into views, sent through a backbone with drawn weights, encoded and written with fsync. What decoding
takes of a processor core is measured in this process, for one training view, for the twelve test views
together and for each of them alone; the rates beside it are those of the processes that an extraction decodes
in. On a CPU decoding shares the cores with the backbone.

    python -m benchmarks.extraction.video [--model swinv2-t] [--size 224] [--clips 16] \
        [--device auto] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks.extraction.forward_all import forward_all
from extract.backbones.loading import backbone_card, load_backbone
from extract.datasets import Dataset, open_dataset, view_recipe
from extract.decoding.video_container import clip_facts
from extract.decoding.video_frames import read_frames
from extract.extractor.batch_order import views_at_once
from extract.extractor.batch_shapes import fit_batches
from extract.extractor.memory import memory_bound
from extract.extractor.row_loader import RowLoader, SourceDigests
from extract.extractor.run import extract
from extract.planning.plan import build_plan
from extract.views.clip_view import ClipView, render_clips
from pipelines.forecast.disk_probe import write_shards
from pipelines.machine.devices import choose_device
from stores.format.plan import StorePlan
from stores.writing.writer import StoreWriter

FRAMES, HEIGHT_PX, WIDTH_PX, KEYS_EVERY = 300, 256, 340, 250


def write_clips(root: Path, count: int) -> Path:
    """Textures in motion under grain, in the official layout. Returns the data set's folder."""
    folder = root / "kinetics400" / "videos" / "made"
    folder.mkdir(parents=True)
    lines = ["label,youtube_id,time_start,time_end,split"]
    for number in range(count):
        (folder / f"clip{number:04d}_000000_000010.mp4").write_bytes(_clip(number))
        lines.append(f"made,clip{number:04d},0,10,train")
        lines.append(f"made,clip{number:04d},0,10,val")
    for split in ("train", "val"):
        (folder.parents[1] / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder.parents[1]


def _clip(seed: int) -> bytes:
    rng, file = np.random.default_rng(seed), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((3 * WIDTH_PX, 2 * HEIGHT_PX), Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 11, (8, HEIGHT_PX, WIDTH_PX, 3)).astype(np.int16)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = (
            WIDTH_PX,
            HEIGHT_PX,
            "yuv420p",
            KEYS_EVERY,
        )
        for number in range(FRAMES):
            x, y = 2 * number, int(HEIGHT_PX / 2 * (1 + np.sin(number / 20)))
            part = scene[y : y + HEIGHT_PX, x : x + WIDTH_PX] + grain[number % 8]
            frame = av.VideoFrame.from_ndarray(np.clip(part, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def decode_all(dataset: Dataset, plan: StorePlan, workers: int, together: int) -> None:
    """Every row, so many views of a record at once, in as many processes as there are workers."""
    loader, records = RowLoader(dataset, plan, SourceDigests()), len(dataset.records)
    groups = [
        [record + view * records for view in range(first, first + together)]
        for record in range(records)
        for first in range(0, len(plan.rows) // records, together)
    ]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(loader.load_views, groups))


def views_of(dataset: Dataset, plan: StorePlan, index: int) -> list[ClipView]:
    rows = [row for row, key in enumerate(plan.rows.keys) if key == dataset.records[index].key]
    return [ClipView.from_params(plan.rows.params[row]) for row in rows]


def core_seconds(dataset: Dataset, plan: StorePlan, decoder: str, together: int) -> float:
    """Of a clip's views, decoded so many at once, in this process."""
    began = time.process_time()
    for index in range(len(dataset.records)):
        data, views = dataset.read_source(index), views_of(dataset, plan, index)
        for first in range(0, len(views), together):
            some = views[first : first + together]
            wanted = sorted({frame for view in some for frame in view.frames})
            render_clips(read_frames(decoder, data, clip_facts(io.BytesIO(data)), wanted), some)
    return (time.process_time() - began) / len(dataset.records)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(options.device)
    root, card = (
        write_clips(folder, options.clips),
        backbone_card(options.model, options.model_args, ("p5n",), "cover"),
    )
    precision = "fp32" if device.type == "cpu" else "fp16"
    backbone = load_backbone(card, "random:0", device=device, precision=precision)

    def planned(split: str, recipe: str, size: int) -> tuple[Dataset, StorePlan]:
        dataset = open_dataset("k400", root, split)
        plan = build_plan(
            dataset,
            view_recipe("k400", recipe, crop_size=size),
            card,
            weights_sha256=backbone.weights_sha256,
            precision=backbone.precision,
            batch_rows=4 if device.type == "cpu" else 32,
        )
        return dataset, fit_batches(plan, backbone)

    found: dict[str, list[float]] = {}

    def timed(name: str, count: int, run: Callable[[], object]) -> None:
        found.setdefault(name, []).append(count / seconds(run))

    train, train_plan = planned("train", "k400", options.size)
    test, test_plan = planned("val", "4x3", options.size)
    clips, rows = options.clips, len(train_plan.rows)
    core: dict[str, dict[str, list[float]]] = {"decord": {}, "pyav": {}}
    forward_all(backbone, train_plan)  # warms up; compiles
    for number in range(options.rounds):
        for decoder, parts in core.items():
            for name, dataset, plan, together in (
                ("one view", train, train_plan, 1),
                ("12 together", test, test_plan, 12),
                ("12 alone", test, test_plan, 1),
            ):
                parts.setdefault(name, []).append(core_seconds(dataset, plan, decoder, together))
        timed("list", clips, lambda: open_dataset("k400", root, "train"))
        timed("one view", rows, lambda: decode_all(train, train_plan, options.workers, 1))
        timed("12 together", 12 * clips, lambda: decode_all(test, test_plan, options.workers, 12))
        timed("backbone", rows, lambda: forward_all(backbone, train_plan))
        disk = folder / f"disk-{number}"
        timed("disk", rows, lambda: write_shards(train_plan, disk, train_plan.bins[0].shards, 1 << 62))  # noqa: B023
        writer = StoreWriter.open_or_create(folder / f"store-{number}", train_plan, needed_bytes=0)
        timed("pipeline", rows, lambda: extract(train, train_plan, backbone, writer, workers=options.workers))  # noqa: B023
    rates = {name: statistics.median(values) for name, values in found.items()}
    on_cpu = device.type == "cpu"
    shared = 1 / (1 / rates["one view"] + 1 / rates["backbone"])
    limit = min(shared if on_cpu else min(rates["one view"], rates["backbone"]), rates["disk"])
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores, {device}, load {os.getloadavg()[0]:.1f}",
        "model": f"{options.model} {precision} {options.size} px, batches of {train_plan.bins[0].batch_rows}",
        "clip_mb": sum(record.source_bytes for record in train.records) / clips / 1e6,
        "core_ms": {
            decoder: {name: 1e3 * statistics.median(values) for name, values in parts.items()}
            for decoder, parts in core.items()
        },
        "rates": rates,
        "limit": limit,
        "share": rates["pipeline"] / limit,
        "bound_mb": memory_bound(test_plan, options.workers) / 1e6,
        "views_at_once": views_at_once(test_plan),
    }


TEXTS = {
    "list": "clips/s listed: size, frames, rotation, key frames",
    "one view": "rows/s decoded, one training view of each clip",
    "12 together": "rows/s decoded, the 12 test views of a clip together",
    "backbone": "rows/s of backbone and codec alone",
    "disk": "rows/s written with fsync alone",
    "pipeline": "rows/s of the pipeline, one training view",
}


def print_table(found: dict[str, Any]) -> None:
    print(f"{found['model']}; {found['machine']}; clips of {found['clip_mb']:.2f} MB\n")
    for decoder, parts in found["core_ms"].items():
        told = ", ".join(f"{name} {value:.0f}" for name, value in parts.items())
        print(f"{decoder}: ms of a core to decode a clip: {told}")
    print()
    for name, text in TEXTS.items():
        print(f"{text:64}{found['rates'][name]:10.2f}")
    print(f"\nlimit of the pipeline {found['limit']:.2f} rows/s; it delivers {found['share']:.0%}")
    print(f"rows of the 12 views take at most {found['bound_mb']:.0f} MB of host memory on their way")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="swinv2-t")
    parser.add_argument("--model-args", type=json.loads, help='such as {"window_size": 7}')
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to write to; default: the temporary folder")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    logging.getLogger("extract").setLevel(logging.ERROR)  # drawn weights are meant here
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-video-") as folder:
        found = measure(Path(folder), options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
