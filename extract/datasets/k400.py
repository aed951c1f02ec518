"""Kinetics-400: ten-second clips of 400 human actions, in the official layout, as a file list, or in tars.

Official layout: `{train,val}.csv` with the columns label, youtube_id, time_start, time_end and split, and
`videos/<label>/<youtube_id>_<start>_<end>.mp4` (start and end in seconds, six digits each; other containers
occur). Clips that the csv lists and the folder lacks are left out: many are no longer available online.
The names of the classes, in their order, are the lines of `label_map_k400.txt` beside the lists; without it,
the sorted labels of all lists, which is the same order where every class occurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.annotation_digest import annotation_digest
from extract.datasets.layouts.k400_lists import FOLDER, SPLITS, Clip, listed_clips
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, sample_video
from extract.decoding.video_media import Videos
from extract.sources.byte_sources import BAD_TARGET, SourceError, retried
from extract.sources.record import READ_THREADS, Record
from extract.swin.window_rule import WindowRule
from extract.views.clip_recipes import TEST_VIEWS, TRAINING_VIEWS, VIEW_RECIPES
from extract.views.view import View
from stores.format.plan import DenseTarget, Target
from stores.subsets import subset_keys

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
DEFAULT_LEVELS = ("last",)
"""What a store keeps by default: the last map, after the backbone's own norm where it has one (p5n of a
Swin)."""
DEFAULT_WINDOW_RULE: WindowRule = "cover"
"""As SwinTransformer/Video-Swin-Transformer."""
DEFAULT_WINDOWS = {224: 7}
"""Lin et al. (NeurIPS 2022): every map of a frame of 224 px divides into windows of 7."""


class K400:
    """One split; a `Dataset`."""

    name = "k400"
    task = "video"
    media = Videos()

    def __init__(
        self, split: str, clips: Sequence[Clip], class_names: Sequence[str], subset: str | None
    ) -> None:
        self.split, self.is_training = split, split in TRAINING_SPLITS
        self._clips = tuple(sorted(clips, key=lambda clip: clip.key))
        self.class_names = tuple(class_names)
        self._number_of = {name: number for number, name in enumerate(self.class_names)}
        self.subset = subset_keys((clip.key for clip in self._clips), subset) if subset else None
        with ThreadPoolExecutor(READ_THREADS) as pool:
            self.records = tuple(pool.map(self._record, self._clips))

    def _record(self, clip: Clip) -> Record:
        facts = retried(lambda: self.media.facts(clip.video), f"header of {clip.key}")
        return Record(
            clip.key,
            clip.video.size,
            facts.hw,
            frames=facts.frames,
            fps=facts.fps,
            decoder=facts.decoder,
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def annotation_digest(self) -> str:
        return annotation_digest(self, [record.key for record in self.records])

    def read_source(self, index: int) -> bytes:
        return self._clips[index].video.read()

    def read_annotation(self, index: int) -> bytes:
        return self._clips[index].label.encode()

    def parse_annotation(self, index: int, annotation: bytes) -> int:
        """The number of the class, from 0. Raises SourceError for a label that is no class."""
        label = annotation.decode(errors="replace")
        if label in self._number_of:
            return self._number_of[label]
        if label.isdecimal() and int(label) < self.num_classes:
            return int(label)
        raise SourceError(BAD_TARGET, f"label {label[:80]!r} is none of the {self.num_classes} classes")

    def read_truth(self, index: int) -> int:
        return self.parse_annotation(index, self.read_annotation(index))

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        label = DenseTarget("label", "int64", ())
        # Marks test rows; the same number, as no view changes the class of a video.
        return (label, DenseTarget("original_label", "int64", ())) if with_original else (label,)

    def targets(self, truth: int, view: View) -> Mapping[str, npt.NDArray[Any]]:
        label = np.array(truth, dtype=np.int64)
        return {"label": label, "original_label": label}


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
