"""Video classification data: clips with one label each, whatever the layout they were listed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.annotation_digest import annotation_digest
from extract.datasets.layouts.k400_lists import Clip
from extract.decoding.video_media import Videos
from extract.sources.byte_sources import BAD_TARGET, SourceError, retried
from extract.sources.record import READ_THREADS, Record
from extract.views.view import View
from stores.format.plan import DenseTarget, Target
from stores.subsets import subset_keys


class LabelledVideos:
    """One split of a video classification data set; a `Dataset`."""

    task = "video"
    media = Videos()
    description: Mapping[str, Any] | None = None
    """Of own data, see `extract.datasets.own.description`."""

    def __init__(
        self,
        name: str,
        split: str,
        is_training: bool,
        clips: Sequence[Clip],
        class_names: Sequence[str],
        subset: str | None,
        number_of: Mapping[str, int] | None = None,
    ) -> None:
        """Args: number_of: the class, from 0, of every label that occurs; None: names and numbers."""
        self.name, self.split, self.is_training = name, split, is_training
        self._clips = tuple(sorted(clips, key=lambda clip: clip.key))
        self.class_names = tuple(class_names)
        self._number_of = {name: number for number, name in enumerate(self.class_names)}
        self._number_of |= number_of or {}
        self.has_truth = self.is_training or any(clip.label for clip in self._clips)
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
        if not self.has_truth:
            return -1
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
        if not self.has_truth:
            return ()
        label = DenseTarget("label", "int64", ())
        # Marks test rows; the same number, as no view changes the class of a video.
        return (label, DenseTarget("original_label", "int64", ())) if with_original else (label,)

    def targets(self, truth: int, view: View) -> Mapping[str, npt.NDArray[Any]]:
        if not self.has_truth:
            return {}
        label = np.array(truth, dtype=np.int64)
        return {"label": label, "original_label": label}
