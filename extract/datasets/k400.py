"""Kinetics-400: ten-second clips of 400 human actions, in the official layout, as a file list, or in tars.

Official layout: `{train,val}.csv` with the columns label, youtube_id, time_start, time_end and split, and
`videos/<label>/<youtube_id>_<start>_<end>.mp4` (start and end in seconds, six digits each; other containers
occur). Clips that the csv lists and the folder lacks are left out: many are no longer available online.
The names of the classes, in their order, are the lines of `label_map_k400.txt` beside the lists; without it,
the sorted labels of all lists, which is the same order where every class occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from extract.datasets.layouts.k400_lists import FOLDER, SPLITS, Clip, listed_clips
from extract.datasets.layouts.labelled_videos import LabelledVideos
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, sample_video
from extract.views.clip_recipes import (
    DEFAULT_LEVELS,
    DEFAULT_WINDOW_RULE,
    DEFAULT_WINDOWS,
    TEST_VIEWS,
    TRAINING_VIEWS,
    VIEW_RECIPES,
)

__all__ = [
    "DEFAULT_FOLDER",
    "DEFAULT_LEVELS",
    "DEFAULT_WINDOWS",
    "DEFAULT_WINDOW_RULE",
    "K400",
    "TEST_VIEWS",
    "TRAINING_VIEWS",
    "VIEW_RECIPES",
]

DEFAULT_FOLDER = FOLDER
OFFICIAL_SPLITS = SPLITS
TRAINING_SPLITS = ("train",)


class K400(LabelledVideos):
    """One split; a `Dataset`."""

    licence = "annotations CC BY 4.0; videos under their owners' terms, as YouTube states them"

    def __init__(
        self, split: str, clips: Sequence[Clip], class_names: Sequence[str], subset: str | None
    ) -> None:
        super().__init__("k400", split, split in TRAINING_SPLITS, clips, class_names, subset)


def open_dataset(data: str | Path, split: str, subset: str | None = None) -> K400:
    """A split of Kinetics-400.

    Args:
        data: the official folder or its parent; or a folder with mmaction's list of files,
        `kinetics400_<split>_list_videos.txt` (lines of a path and a number), or such a list; or tars of
        `key.mp4` with `key.cls` (a number) or `key.txt` (a name): a folder of them (`<split>/*.tar` or
        `*<split>*.tar`), one tar, or a pattern.
        split: train or val; a list, tar or pattern given by itself is taken to be that split.
        subset: see stores.subsets.

    Raises:
        DatasetLayoutError: `data` holds none of these, or none of the clips it lists.
        HostileTarError: see extract.sources.tar_index.
    """
    clips, class_names = listed_clips(data, split)
    return K400(split, clips, class_names, subset)


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set in the official layout: so many clips of each split, of two classes in turn."""
    for split in OFFICIAL_SPLITS:
        lines = ["label,youtube_id,time_start,time_end,split"]
        for number in range(records):
            label, clip = ("abseiling", "air drumming")[number % 2], f"{split}{number:07d}"
            path = folder / "videos" / label / f"{clip}_000000_000010.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample_video(generator, SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]))
            lines.append(f"{label},{clip},0,10,{split}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
