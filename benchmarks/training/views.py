r"""How many fixed views are enough? The demo's heads on V = 1, 2, 4, 8 stored views and online, equal steps.

Made scenes over the bundled swinv2-nano. A run of each V and of `train-head --online`, which never shows a
view twice, for every seed; the mIoU on held-out scenes, the one on the training scenes seen as test images,
and the gap of the two. Means over the seeds are printed, with their spread.

    python -m benchmarks.training.views [--head bifpn1] [--steps 600] [--scenes 120] \
        [--views 1,2,4,8] [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipelines.cli.arguments import parse
from pipelines.config import EvaluateConfig, ExtractConfig, TrainConfig
from pipelines.demo.made.scenes import write_split
from pipelines.verbs import evaluate, extract_features, train_head

CROP_PX = 128
ONLINE = "online"


def store(folder: Path, data: Path, split: str, views: int | None) -> Path:
    """Extracts training views, or single test views of a split where `views` is None."""
    common: dict[str, Any] = {"dataset": "ade20k", "data": str(data), "model": "swinv2-nano"}
    if views is None:
        config = ExtractConfig(**common, split="validation", short_side=CROP_PX, stores=str(folder / split))
    else:
        config = ExtractConfig(
            **common, split=split, views=views, crop_size=CROP_PX, stores=str(folder / f"views-{views}")
        )
    return Path(extract_features.run(config)["store"])


def as_validation(folder: Path, data: Path) -> Path:
    """The training scenes, linked as a validation split, so that they can be seen as test images."""
    linked = folder / "training-as-validation" / data.name
    for kind in ("images", "annotations"):
        (linked / kind / "validation").mkdir(parents=True)
        for path in (data / kind / "training").iterdir():
            os.link(path, linked / kind / "validation" / path.name.replace("_train_", "_val_"))
        (linked / kind / "training").symlink_to((data / kind / "training").resolve())
    return linked


def train(words: list[str], run: Path, options: argparse.Namespace, seed: int) -> None:
    recipe = "demo-linear" if options.head == "linear" else "demo-upernet"
    words = ["--head", options.head, "--recipe", recipe, "--run", str(run), "--seed", str(seed), *words]
    words += ["--max-steps", str(options.steps), "--val-every", "0", "--device", options.device]
    train_head.run(parse(TrainConfig, words))


def score(run: Path, test_store: Path, device: str) -> float:
    return float(evaluate.run(EvaluateConfig(run=str(run), store=str(test_store), device=device))["miou"])


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    write_split(folder / "data", "training", options.scenes)
    data = write_split(folder / "data", "validation", options.held_out)
    held_out = store(folder / "features", data, "validation", None)
    seen = store(folder / "features", as_validation(folder, data), "training-as-test", None)
    sources: dict[str, list[str]] = {}
    for views in options.views:
        path = store(folder / "features", data, "training", views)
        sources[str(views)] = ["--store", str(path), "--val-store", str(held_out)]
    sources[ONLINE] = ["--online", "--dataset", "ade20k", "--data", str(data), "--model", "swinv2-nano"]
    sources[ONLINE] += ["--crop-size", str(CROP_PX), "--stores", str(folder / "none")]
    rows = []
    for name, words in sources.items():
        scores = []
        for seed in options.seeds:
            run = folder / "runs" / f"{name}-{seed}"
            train(words, run, options, seed)
            scores.append((score(run, held_out, options.device), score(run, seen, options.device)))
        held = [each for each, _ in scores]
        visits = options.steps * 16 / options.scenes
        rows.append(
            {
                "views": name,
                "visits_per_view": visits / int(name) if name != ONLINE else 1.0,
                "held_out_miou": statistics.mean(held),
                "spread": max(held) - min(held),
                "training_miou": statistics.mean(each for _, each in scores),
                "gap": statistics.mean(train_miou - held_miou for held_miou, train_miou in scores),
            }
        )
    return {"head": options.head, "steps": options.steps, "scenes": options.scenes, "rows": rows}


def print_table(found: dict[str, Any]) -> None:
    print(
        f"{found['head']}, {found['steps']} steps of 16 rows, {found['scenes']} training scenes; mIoU in %\n"
    )
    print(f"{'views':8}{'visits/view':>12}{'held out':>10}{'spread':>8}{'training':>10}{'gap':>8}")
    for row in found["rows"]:
        figures = (row["held_out_miou"], row["spread"], row["training_miou"], row["gap"])
        held, spread, training, gap = (100 * each for each in figures)
        print(
            f"{row['views']:8}{row['visits_per_view']:12.1f}{held:10.2f}{spread:8.2f}{training:10.2f}{gap:8.2f}"
        )


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--head", default="bifpn1")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--views", type=_numbers, default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--folder", type=Path, help="for data, stores and runs; default: the temporary folder"
    )
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-views-") as folder,
        contextlib.redirect_stdout(sys.stderr),  # the verbs print their own results
    ):
        found = measure(Path(folder), options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
