"""`demo --dataset k400`: made clips and their reversals, their stores, heads trained from them, a table and a
picture. Clips differ from their reversals only in
frame order, which attention over frames can classify and a mean over them cannot."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.config import DemoConfig
from pipelines.demo.made.clips import (
    CLASS_NAMES,
    Clip,
    MadeClip,
    key_of_reversal,
    make_clip,
    reversal_of,
    reversed_clip,
    write_training,
    write_validation,
)
from pipelines.demo.steps import (
    DemoStores,
    Training,
    check_head,
    fill_both,
    train_and_evaluate,
    write_table,
)
from pipelines.evaluation.store_views import store_views
from pipelines.pictures.clips import draw_clips
from pipelines.runs.trained_head import load_head
from pipelines.tasks import task_of
from stores.reading.reader import open_store

logger = logging.getLogger(__name__)

CROP_PX = 64
LINEAR = "linear"
HEADS = ("temporal4", "global4")
RECIPE = "demo-k400"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipDemoSize:
    """How much is made and trained; the defaults take less than 6 minutes on two processor cores."""

    training_clips: int = 96
    validation_clips: int = 30
    """Each of them is there a second time, played backwards."""
    views: int = 1
    """Seeded views of each training clip."""
    max_steps: int | None = None
    """Of each head; None: the recipe's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipScore:
    """Scores of one head on the held-out clips."""

    head: str
    run: Path
    top1: float
    inside_pairs: float
    """The share of clips of which it prefers their class to that of their reversal; 0.5 is chance."""
    reversal_gap: float
    """The largest difference of a class score between a clip and its reversal."""
    probability: dict[str, float]
    """What it gives to the class of each clip, by its name."""
    seconds: float
    """Of training."""


def run_k400_demo(config: DemoConfig, size: ClipDemoSize) -> dict[str, Any]:
    """Runs the whole path under `config.run`; what is there already (clips, stores) is used again.

    Returns the figures of each head and where table and picture are. Raises UsageError for an unknown head.
    """
    if config.head is not None:
        check_head(config.head, "video")
    began, root = time.perf_counter(), Path(config.run)
    data = make_clips(root / "data", size)
    stores = fill_stores(data, root / "features", size)
    heads = dict.fromkeys((LINEAR, *((config.head,) if config.head else HEADS)))
    training = Training(seed=config.seed, max_steps=size.max_steps)
    scores = [train_and_measure(head, stores, root / "runs", training) for head in heads]
    table, picture = _write_table(root, scores), root / "clips.png"
    draw_clips(_shown(scores, min(len(CLASS_NAMES), size.validation_clips)), picture)
    seconds = time.perf_counter() - began
    print(f"\n{table}\ntable {root / 'table.csv'}, picture {picture}, {seconds:.0f} s")
    print(_last_line(scores, size.validation_clips))
    return {
        "heads": {score.head: _figures(score) for score in scores},
        "stores": [str(stores.training), str(stores.validation)],
        "table": str(root / "table.csv"),
        "picture": str(picture),
        "seconds": round(seconds, 1),
    }


def _figures(score: ClipScore) -> dict[str, Any]:
    return {
        "top1": score.top1,
        "inside_pairs": score.inside_pairs,
        "reversal_gap": score.reversal_gap,
        "run": str(score.run),
    }


def make_clips(folder: Path, size: ClipDemoSize) -> Path:
    """Writes both splits where they are not there yet. Returns the data set's folder."""
    began = time.perf_counter()
    write_training(folder, size.training_clips)
    data = write_validation(folder, size.validation_clips)
    logger.info(
        "%d training clips, %d validation clips and their reversals in %s, %.1f s",
        *(size.training_clips, size.validation_clips, data, time.perf_counter() - began),
    )
    return data


def fill_stores(data: Path, stores: Path, size: ClipDemoSize) -> DemoStores:
    """Extracts both splits; a complete store is left as it is."""
    return fill_both(
        "k400",
        data,
        stores,
        training={"split": "train", "views": size.views, "crop_size": CROP_PX},
        # One view in the middle, which sees the same pictures of a clip and of its reversal: see MOMENTS.
        validation={"split": "val", "views": "single", "crop_size": CROP_PX},
    )


def train_and_measure(
    head: str, stores: DemoStores, runs: Path, training: Training | None = None
) -> ClipScore:
    """A new run of `head` by the demo's recipe, and its figures."""
    run = train_and_evaluate(head, RECIPE, stores, runs, training)
    scores, labels = class_scores(run.folder, stores.validation)
    return ClipScore(
        head=head,
        run=run.folder,
        top1=run.figures["top1"],
        inside_pairs=inside_pairs(scores, labels),
        reversal_gap=reversal_gap(scores),
        probability={key: float(scores[key].softmax(0)[labels[key]]) for key in scores},
        seconds=run.seconds,
    )


def class_scores(run: Path, store: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Of each clip of a test store: class scores before the softmax, float32 (classes,), and its class."""
    device = torch.device("cpu")
    head, _ = load_head(run, device)
    scores, labels = {}, {}
    with open_store(store) as opened, torch.no_grad():
        for view in store_views(opened, head.levels, task_of(head.task).test_targets, device):
            scores[view.key] = head(view.features, [view.valid_hw])[0]
            labels[view.key] = int(view.truth["original_label"])
    return scores, labels


def inside_pairs(scores: dict[str, Tensor], labels: dict[str, int]) -> float:
    """The share of clips of which the score of their class exceeds that of their reversal's class."""
    right = []
    for key, score_K in scores.items():
        other = CLASS_NAMES.index(reversal_of(CLASS_NAMES[labels[key]]))
        right.append(bool(score_K[labels[key]] > score_K[other]))
    return float(np.mean(right))


def reversal_gap(scores: dict[str, Tensor]) -> float:
    """The largest difference of a class score between a clip and its reversal."""
    pairs = [(key, other) for key in scores if (other := key_of_reversal(key)) in scores]
    return max(float((scores[a] - scores[b]).abs().max()) for a, b in pairs)


def _shown(scores: Sequence[ClipScore], count: int) -> list[tuple[Clip, str]]:
    """Clips of different pairs, each followed by its reversal, and what each head gives to their classes."""
    shown = []
    for clip in _clips_of_pairs(count):
        for each in (clip, reversed_clip(clip)):
            said = ", ".join(f"{score.head} {100 * score.probability[each.key]:.0f} %" for score in scores)
            shown.append((each.pictures, f"{each.label}: {said}"))
    return shown


def _clips_of_pairs(count: int) -> list[MadeClip]:
    """The first held-out clip of each pair, of the first `count` clips."""
    first: dict[frozenset[str], MadeClip] = {}
    for number in range(count):
        clip = make_clip("val", number)
        first.setdefault(frozenset((clip.label, reversal_of(clip.label))), clip)
    return list(first.values())


def _write_table(root: Path, scores: Sequence[ClipScore]) -> str:
    """table.csv and table.txt. Returns the text."""
    rows = [
        ("top-1", *(f"{100 * score.top1:.2f}" for score in scores)),
        ("inside pairs", *(f"{100 * score.inside_pairs:.2f}" for score in scores)),
        ("reversal gap", *(f"{score.reversal_gap:.1e}" for score in scores)),
        ("training seconds", *(f"{score.seconds:.0f}" for score in scores)),
    ]
    return write_table(root, [("in %", *(score.head for score in scores)), *rows])


def _last_line(scores: Sequence[ClipScore], clips: int) -> str:
    said = ", ".join(f"{score.head} {100 * score.inside_pairs:.2f}" for score in scores)
    return f"inside pairs {said}, {clips} held-out clips and their reversals"
