"""Video classification data: clips with one label each, whatever the layout they were listed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.dataset_split import DatasetSplit
from extract.datasets.layouts.k400_lists import Clip
from extract.decoding.video_media import Videos
from extract.sources.byte_sources import BAD_TARGET, SourceError, retried
from extract.sources.record import Record
from extract.views.view import View
from stores.format.plan import DenseTarget, Target


class LabelledVideos(DatasetSplit):
    """One split of a video classification data set; a `Dataset`."""

    task = "video"
    media = Videos()

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
        super().__init__(name, split, is_training, class_names)
        self._clips = tuple(sorted(clips, key=lambda clip: clip.key))
        self._number_of = {name: number for number, name in enumerate(self.class_names)}
        self._number_of |= number_of or {}
        self.has_truth = self.is_training or any(clip.label for clip in self._clips)
        keys = (clip.key for clip in self._clips)
        self.list_records(self._clips, self._record, keys, subset, self._labels)

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

    def read_source(self, index: int) -> bytes:
        return self._clips[index].video.read()

    def read_annotation(self, index: int) -> bytes:
        return self._clips[index].label.encode()

    def parse_annotation(self, index: int, annotation: bytes) -> int:
        """The number of the class, from 0. Raises SourceError for a label that is no class."""
        if not self.has_truth:
            return -1
        label = annotation.decode(errors="replace")
        if (number := self._number(label)) is None:
            raise SourceError(BAD_TARGET, f"label {label[:80]!r} is none of the {self.num_classes} classes")
        return number

    def _number(self, label: str) -> int | None:
        if label.isdecimal() and label not in self._number_of:
            return int(label) if int(label) < self.num_classes else None
        return self._number_of.get(label)

    def _labels(self) -> dict[str, int]:
        """The class of each record; of one whose label is no class -1."""
        numbers = {clip.key: self._number(clip.label) for clip in self._clips}
        return {key: -1 if number is None else number for key, number in numbers.items()}

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
