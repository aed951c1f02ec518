r"""Extraction end to end beside the scripts that people write, and reading back: photographs to features.

Every run is a fresh process, start-up included: `permafrost extract`, and benchmarks.against.rival with each
way of storing, two loader workers, in int8 as ours and in float16 as people write. One column is without
fsync for anybody, one with it. The rivals' batch and memory format are the best of 1, 4, 8 and channels_last,
found first with the memmap script. All take turns; medians are printed. Weights are drawn, which costs time
as loading them does.

    taskset -c 0,1 python -m benchmarks.against [--photographs FOLDER] [--count 200] [--rounds 3] \
        [--folder DISK] [--rivals memmap,zarr] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.against.stores import STORES, installed
from benchmarks.extraction.pipeline import write_photographs
from benchmarks.machine import conditions, print_conditions
from stores import open_store

LEAST_FASTER, LEAST_READING = 1.7, 5.0
"""Of the best rival's time, and of the best rival's rows a second."""
READ_BATCH = 16
PIPELINES = (sys.executable, "-m", "pipelines")
COLUMNS = ("no fsync", "fsync")
DTYPES = ("int8", "float16")
_NO_FSYNC = """
import os, runpy
os.fsync = os.fdatasync = lambda fd: None
runpy.run_module("pipelines", run_name="__main__")
"""

Run = dict[str, float]
"""`seconds` and `processor_s`, children included."""


def timed(words: Sequence[str]) -> Run:
    """One command from its start to its end."""
    os.sync()  # what earlier runs left is not part of this one
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return {
        "seconds": seconds,
        "processor_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def described(folder: Path, photographs: Path, count: int) -> tuple[Path, Path]:
    """The photographs in two class folders, and their description, which `describe` writes."""
    for number, path in enumerate(sorted(photographs.rglob("*.jpg"))[:count]):
        target = folder / "photographs" / ("even", "odd")[number % 2] / f"{number:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    description = folder / "photographs.yaml"
    timed(
        [
            sys.executable,
            "-m",
            "pipelines",
            "describe",
            str(folder / "photographs"),
            "--out",
            str(description),
        ]
    )
    return folder / "photographs", description


def ours(description: Path, out: Path, options: argparse.Namespace, *, fsync: bool) -> list[str]:
    start = ["-m", "pipelines"] if fsync else ["-c", _NO_FSYNC]
    flags = f"--model {options.model} --weights random:0 --levels p2,p3,p4,p5 --crop-size {options.size}"
    given = ["--dataset", str(description), "--stores", str(out), "--device", "cpu"]
    return [sys.executable, *start, "extract", *given, *flags.split()]


def rival(name: str, photographs: Path, out: Path, options: argparse.Namespace, *settings: str) -> list[str]:
    given = ["--photographs", str(photographs), "--out", str(out), "--count", str(options.count)]
    model = ["--model", options.rival_model, "--size", str(options.size)]
    return [sys.executable, "-m", "benchmarks.against.rival", name, *given, *model, *settings]


def best_settings(photographs: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    """Of the memmap script: how the images go through the backbone does not depend on the store."""
    if len(options.batches) == 1:
        return ["--batch", str(options.batches[0])]
    tried: dict[tuple[str, ...], float] = {}
    for batch in options.batches:
        for layout in ([], ["--channels-last"]):
            settings = ["--batch", str(batch), *layout]
            tried[tuple(settings)] = timed(
                rival("memmap", photographs, folder / "tried", options, *settings)
            )["seconds"]
            shutil.rmtree(folder / "tried")
    best = min(tried, key=lambda settings: tried[settings])
    print(f"rivals' settings: {' '.join(best)} (of {', '.join(f'{s:.1f} s' for s in tried.values())})")
    return list(best)


def reading_rates(made: dict[str, Path], rows: int) -> dict[str, float]:
    """Rows a second of stored arrays in a random order, ours with every checksum compared."""
    order = np.random.default_rng(0).permutation(rows).tolist()
    found = {}
    for name, folder in made.items():
        began = time.perf_counter()
        if name == "permafrost":
            with open_store(next(folder.glob("*/MANIFEST.json")).parent) as store:
                began = time.perf_counter()
                for start in range(0, rows, READ_BATCH):
                    store.read_encoded(order[start : start + READ_BATCH])
        else:
            STORES[name.split()[0]].read(folder, order[:1])  # opens what is opened once
            began = time.perf_counter()
            read = STORES[name.split()[0]].read(folder, order)
            assert len(read) == rows
        found[name] = rows / (time.perf_counter() - began)
    return found


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    source = options.photographs or write_photographs(folder / "made", options.count) / "images"
    photographs, description = described(folder, source, options.count)
    settings = best_settings(photographs, folder, options)
    names = [name for name in options.rivals if name in installed()]
    missing = sorted(set(options.rivals) - set(names))
    found: dict[str, Any] = {"settings": settings, "missing": missing, "runs": {}}
    reading: list[dict[str, float]] = []
    for number in range(options.rounds):
        for fsync in (False, True):
            made: dict[str, Path] = {}
            turns = {"permafrost": ours(description, folder / "out" / "permafrost", options, fsync=fsync)}
            for name in names:
                for dtype in DTYPES:
                    more = [*settings, "--dtype", dtype, *(["--fsync"] if fsync else [])]
                    out = folder / "out" / f"{name}-{dtype}"
                    turns[f"{name} {dtype}"] = rival(name, photographs, out, options, *more)
            for turn, words in turns.items():
                column = found["runs"].setdefault(turn, {}).setdefault("fsync" if fsync else "no fsync", [])
                column.append(timed(words))
                made[turn] = folder / "out" / turn.replace(" ", "-")
                sizes = [file.stat().st_size for file in made[turn].rglob("*") if file.is_file()]
                found["runs"][turn]["mb"] = sum(sizes) / 1e6
            if fsync:
                reading.append(reading_rates(made, options.count))
            shutil.rmtree(folder / "out")
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    found["rows_per_s"] = {name: statistics.median(each[name] for each in reading) for name in reading[0]}
    return found


def median(runs: list[Run], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def print_table(found: dict[str, Any]) -> None:
    print_conditions(found["conditions"])
    for name in found["missing"]:
        print(f"{name} is not installed and was left out")
    print(
        "\n| | no fsync: s | processor s | fsync: s | processor s | MB | rows/s read |\n|---"
        + 6 * "|---"
        + "|"
    )
    for name, columns in found["runs"].items():
        figures = [(column, figure) for column in COLUMNS for figure in ("seconds", "processor_s")]
        cells = " | ".join(f"{median(columns[column], figure):.1f}" for column, figure in figures)
        print(f"| {name} | {cells} | {columns['mb']:.0f} | {found['rows_per_s'][name]:.0f} |")
    others = {name: columns for name, columns in found["runs"].items() if name != "permafrost"}
    for column in COLUMNS:
        mine = median(found["runs"]["permafrost"][column], "seconds")
        best = min(others, key=lambda name: median(others[name][column], "seconds"))
        ratio = median(others[best][column], "seconds") / mine
        verdict = _verdict(ratio, LEAST_FASTER)
        print(f"\n{column}: {ratio:.2f}x as fast as the best ({best}), goal {LEAST_FASTER}: {verdict}")
    best = max(others, key=lambda name: found["rows_per_s"][name])
    ratio = found["rows_per_s"]["permafrost"] / found["rows_per_s"][best]
    print(f"reading: {ratio:.1f}x the best ({best}), goal {LEAST_READING}: {_verdict(ratio, LEAST_READING)}")


def _verdict(ratio: float, least: float) -> str:
    return "met" if ratio >= least else "MISSED"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="folder of .jpg files; default: made ones")
    parser.add_argument("--count", type=int, default=200, help="the first so many photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to write to; default: the temporary folder")
    parser.add_argument("--rivals", type=lambda text: text.split(","), default=list(STORES))
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 8])
    parser.add_argument("--model", default="swinv2-t")
    parser.add_argument("--rival-model", default="swinv2_tiny_window8_256", help="timm's name of the same")
    parser.add_argument("--size", type=int, default=256, help="side of a view in pixels")
    parser.add_argument("--quick", action="store_true", help="4 images of 64 px, one round: tries all")
    parser.add_argument("--json", type=Path, help="a file for every run's figures")
    options = parser.parse_args(words)
    if options.quick:
        options.count, options.rounds, options.size, options.batches = 4, 1, 64, [4]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-against-") as folder:
        found = {"conditions": conditions(Path(folder)), **measure(Path(folder), options)}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    print_table(found)


if __name__ == "__main__":
    main()
