"""Time and memory of a store's life at 10,000 to 1,000,000 rows, and of listing COCO and Kinetics-400.

    python -m benchmarks.scale [--rows 10000,100000,1000000] [--coco 118287] [--k400 20000] [--folder DIR]

Each step runs in a process of its own: processor seconds, seconds, and the peak of memory beyond what the
process had when its modules were loaded, of listings what is left of it too. An exponent is the slope over
the two largest sizes: 1 is linear. The table is printed once more as Markdown at the end.
Rows are small (8 channels of one cell), so that the disk decides nothing. K400's listing reads the container
of every clip; one made clip stands for all, by hard links.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import conditions, print_conditions

SIZES = (10_000, 100_000, 1_000_000)
K400_CLIPS = 20_000
"""Of 241,255 in training: a listing is linear in them."""
Figures = dict[str, float]


def made_plan(rows: int) -> Any:
    from benchmarks.stores.one_bin import rows_of_one_bin
    from stores.format.features import NEW_OPTIONAL, NEW_REQUIRED
    from stores.format.plan import Bin, StorePlan, shard_rows_for
    from stores.pyramid import Level, PyramidSpec

    table = rows_of_one_bin(rows, 32, params=14, digits=12)
    return StorePlan(
        name="made-training-made-int8",
        identity={"made": rows},
        pyramid=PyramidSpec((Level(name="p5", stride_px=32, channels=8, stage=4),)),
        codec="int8",
        codec_settings={},
        bins=(Bin(height_px=32, width_px=32, rows=rows, shard_rows=shard_rows_for(8, rows), batch_rows=32),),
        targets=(),
        view_params=tuple(f"p{number}" for number in range(14)),
        rows=table,
        required_features=NEW_REQUIRED,
        optional_features=NEW_OPTIONAL,
    )


def views(root: Path, rows: int) -> None:
    """View parameters and row table of so many images of one view, as in planning."""
    import numpy as np

    from extract.datasets import view_recipe
    from extract.sources.record import Record

    recipe = view_recipe("coco", "coco")
    params = [recipe.view("coco", Record(f"{n:012d}", 1, (480, 640)), 0, 0).to_params() for n in range(rows)]
    np.stack(params)


def plan(root: Path, rows: int) -> None:
    from stores.format.plan_file import encode_plan

    encode_plan(made_plan(rows))


def create(root: Path, rows: int) -> None:
    from stores.writing.writer import StoreWriter

    StoreWriter.open_or_create(root, made_plan(rows))


def write(root: Path, rows: int) -> None:
    import numpy as np

    from stores.writing.writer import StoreWriter

    level = {"p5": {"q": np.ones((1, 1, 8), np.int8), "scale": np.ones(8, np.float32)}}
    writer = StoreWriter.open_or_create(root, made_plan(rows))
    for shard in writer.pending():
        shard_writer = writer.open_shard(shard)
        for row in shard_writer.rows:
            shard_writer.put(row, level, {}, source_sha256=bytes(32))
        shard_writer.commit({}, {})


def status(root: Path, rows: int) -> None:
    from stores.checks.status import store_status

    found = store_status(_store(root))
    assert (found.rows, found.written) == (rows, rows), found


def commit(root: Path, rows: int) -> None:
    from stores.writing.writer import StoreWriter

    StoreWriter.open_or_create(root, made_plan(rows)).finish()


def open_(root: Path, rows: int) -> None:
    from stores import open_store

    with open_store(_store(root)) as store:
        assert len(store) == rows
        store.read_features([0, rows - 1])


def verify(root: Path, rows: int) -> None:
    from stores import verify_store

    assert verify_store(_store(root)).ok


def epoch(root: Path, rows: int) -> None:
    """The order of an epoch; beyond opening."""
    from pipelines.feed.joined_stores import RowIndex
    from pipelines.feed.row_order import EndlessRows
    from stores import open_store

    with open_store(_store(root)) as store:
        order = EndlessRows(RowIndex(keys=store.keys, views=store.views), batch_size=16, seed=0)
        assert sum(len(batch) for batch in order.batches(0, rows // 16)) == rows // 16 * 16


def _store(root: Path) -> Path:
    return next(path for path in root.iterdir() if (path / "plan.json").exists())


MODULES = (
    *("stores.writing.writer", "stores.reading.reader", "stores.checks.status", "stores.checks.verify"),
    *("pipelines.feed.row_order", "extract.datasets.coco", "extract.datasets.k400"),
    *("extract.backbones.loading", "extract.planning.plan", "benchmarks.planning.made_coco"),
)
STEPS: dict[str, Callable[[Path, int], None]] = {
    "views": views,
    "plan": plan,
    "create": create,
    "write": write,
    "status, all written": status,
    "commit": commit,
    "status, committed": status,
    "open": open_,
    "verify": verify,
    "an epoch's order": epoch,
}


def _coco(root: Path) -> tuple[Any, Any, Any]:
    from extract.backbones.loading import backbone_card
    from extract.datasets import open_dataset, view_recipe

    return (
        open_dataset("coco", root, "train2017"),
        view_recipe("coco", "coco"),
        backbone_card("swinv2-b"),
    )


def list_coco(root: Path, images: int) -> None:
    """Listing and the whole plan: annotations surveyed, views drawn, identity complete."""
    from extract.planning.plan import build_plan

    dataset, recipe, card = _coco(root)
    build_plan(dataset, recipe, card, weights_sha256="0" * 64, precision="fp32")


def list_k400(root: Path, clips: int) -> None:
    from extract.datasets import open_dataset

    assert len(open_dataset("k400", root, "train").records) == clips


def begin_coco(root: Path, images: int) -> None:
    """Planning as above, and an empty store of it beside the record of its sources."""
    from extract.planning.begun import record_sources
    from extract.planning.plan import build_plan
    from stores.writing.writer import StoreWriter

    dataset, recipe, card = _coco(root)
    plan = build_plan(dataset, recipe, card, weights_sha256="0" * 64, precision="fp32")
    record_sources(StoreWriter.open_or_create(root / "stores", plan, needed_bytes=0).path, dataset)


def resume_coco(root: Path, images: int) -> None:
    """Up to the plan that an extraction resumes by, and its first annotation."""
    from extract.planning.begun import begun_estimate
    from extract.planning.plan import complete_plan

    dataset, recipe, card = _coco(root)
    estimate = begun_estimate(root / "stores", dataset, recipe, card)
    assert estimate is not None
    complete_plan(estimate, dataset, recipe, card, weights_sha256="0" * 64, precision="fp32")
    dataset.read_annotation(0)


LISTINGS: dict[str, Callable[[Path, int], None]] = {
    "plan COCO": list_coco,
    "begin COCO": begin_coco,
    "resume COCO": resume_coco,
    "list K400": list_k400,
}
"""Each needs the folders that the one before leaves."""


def make_k400(root: Path, clips: int) -> None:
    """Folders of classes as the official ones, and their list; one clip, linked."""
    import numpy as np

    from extract.datasets import dataset_module

    dataset_module("k400").write_sample(root, 1, np.random.default_rng(0))
    source, listing = next(root.rglob("train*.mp4")), root / "train.csv"
    with listing.open(newline="") as file:
        fields, row = list(csv.reader(file))[:2]
    with listing.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        for number in range(clips):
            name = f"{number:011d}"
            writer.writerow([row[0], name, *row[2:]])
            target = source.with_name(f"{name}_000000_000010.mp4")
            if not target.exists():
                os.link(source, target)
    source.unlink()


def measured(step: Callable[[Path, int], None], root: Path, count: int) -> Figures:
    """Run inside the step's own process."""
    for module in MODULES:  # loaded before memory and time are counted
        import_module(module)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _memory("VmRSS")
    began, wall = time.process_time(), time.perf_counter()
    step(root, count)
    return {
        "processor_s": time.process_time() - began,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": (_memory("VmHWM") - before) / 1e6,
        "left_mb": (_memory("VmRSS") - before) / 1e6,
    }


def _memory(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def in_a_process(name: str, root: Path, count: int) -> Figures:
    words = [
        sys.executable,
        "-m",
        "benchmarks.scale",
        "--step",
        name,
        "--folder",
        str(root),
        "--rows",
        str(count),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} of {count} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def exponent(small: float, large: float, ratio: float) -> float:
    """
    >>> exponent(1, 100, 10)
    2.0
    """
    return math.log(large / small) / math.log(ratio) if small > 0 and large > 0 else math.nan


def line(name: str, sizes: list[int], figures: list[Figures]) -> str:
    parts = [f"{f['processor_s']:8.2f} s {f['wall_s']:8.2f} s {f['peak_mb']:7.0f} MB" for f in figures]
    if len(sizes) > 1:
        ratio = sizes[-1] / sizes[-2]
        ends = [
            exponent(figures[-2][field], figures[-1][field], ratio) for field in ("processor_s", "peak_mb")
        ]
        parts.append(f"  exponents {ends[0]:.2f} {ends[1]:.2f}")
    return f"{name:20}" + " |".join(parts)


def table(found: Mapping[str, Mapping[int, Figures]]) -> str:
    """Markdown: processor seconds and peak MB of each step at each size, and the exponents of both.

    >>> figures = {"processor_s": 1.0, "wall_s": 2.0, "peak_mb": 3.0, "left_mb": 1.0}
    >>> print(table({"open": {10: figures, 100: figures}}))
    | step | 10 | 100 | exponents of time and memory |
    |---|---|---|---|
    | open | 1.00 s, 3 MB | 1.00 s, 3 MB | 0.0, 0.0 |
    """
    sizes = sorted({size for by_size in found.values() for size in by_size if len(by_size) > 1})
    head = ["step", *(f"{size:,}" for size in sizes), "exponents of time and memory"]
    lines = [head, ["---"] * len(head)] if sizes else []
    for name, by_size in found.items():
        if len(by_size) < 2:
            continue
        cells = [f"{f['processor_s']:.2f} s, {f['peak_mb']:.0f} MB" for f in by_size.values()]
        small, large = sorted(by_size)[-2:]
        ends = [
            exponent(by_size[small][field], by_size[large][field], large / small)
            for field in ("processor_s", "peak_mb")
        ]
        lines.append([name, *cells, ", ".join(f"{end:.1f}" for end in ends)])
    alone = {name: by_size for name, by_size in found.items() if len(by_size) == 1}
    if alone:
        lines += [[], ["step", "processor s", "peak MB", "left MB"], ["---"] * 4]
    for name, by_size in alone.items():
        ((size, f),) = by_size.items()
        figures = [f"{f['processor_s']:.1f}", f"{f['peak_mb']:.0f}", f"{f['left_mb']:.0f}"]
        lines.append([f"{name}, {size:,}", *figures])
    return "\n".join(f"| {' | '.join(cells)} |" if cells else "" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(map(str, SIZES)))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--coco", type=int, default=0, help="images; 118287 makes a file of 0.5 GB")
    parser.add_argument("--k400", type=int, default=0, help=f"clips, such as {K400_CLIPS}")
    parser.add_argument("--json", type=Path, default=None, help="file for all figures")
    parser.add_argument("--step", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.rows.split(",") if size]
    if options.step:
        print(json.dumps(measured({**STEPS, **LISTINGS}[options.step], options.folder, sizes[0])))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    print_conditions(conditions(folder))
    found: dict[str, dict[int, Figures]] = {}
    print(f"{'':20}" + " |".join(f"{size:>14,} rows: processor, wall, peak" for size in sizes))
    for name in STEPS if sizes else ():
        found[name] = {size: in_a_process(name, _root(folder, size), size) for size in sizes}
        print(line(name, sizes, list(found[name].values())), flush=True)
    for name, count, make in (
        ("plan COCO", options.coco, _make_coco),
        ("begin COCO", options.coco, _make_coco),
        ("resume COCO", options.coco, _make_coco),
        ("list K400", options.k400, make_k400),
    ):
        if count:
            root = folder / name.split()[1].lower()
            if not root.exists():
                make(root, count)
            found[name] = {count: in_a_process(name, root, count)}
            print(line(f"{name} {count:,}", [count], list(found[name].values())), flush=True)
    print(f"\n{table(found)}")
    if options.json:
        options.json.write_text(json.dumps({"conditions": conditions(folder), "figures": found}, indent=1))
    if options.folder is None:
        shutil.rmtree(folder)


def _root(folder: Path, size: int) -> Path:
    root = folder / f"rows-{size}"
    root.mkdir(exist_ok=True)
    return root


def _make_coco(root: Path, images: int) -> None:
    from benchmarks.planning.made_coco import write as write_coco

    write_coco(root, images)


if __name__ == "__main__":
    main()
