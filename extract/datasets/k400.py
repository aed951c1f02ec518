"""Kinetics-400: ten-second clips of 400 human actions, in the official layout, as a file list, or in tars.

Official layout: `{train,val}.csv` with the columns label, youtube_id, time_start, time_end and split, and
`videos/<label>/<youtube_id>_<start>_<end>.mp4` (start and end in seconds, six digits each; other containers
occur). Clips that the csv names and nobody has are left out: many have vanished from where they came from.
The names of the classes, in their order, are the lines of `label_map_k400.txt` beside the lists; without it,
the sorted labels of all lists there are, which is the same order where every class occurs.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.clip_views import TEST_VIEWS, TRAINING_VIEWS, VIEW_RECIPES
from extract.records import READ_THREADS, DatasetLayoutError, Record, annotation_digest
from extract.sources import BAD_TARGET, ByteSource, FileSource, SourceError, retried
from extract.tar_samples import find_tars, tar_samples
from extract.video import Videos
from extract.view import View
from stores.layout import DenseTarget, Target
from stores.subset import subset_keys

__all__ = ["DEFAULT_FOLDER", "DEFAULT_LEVELS", "K400", "TEST_VIEWS", "TRAINING_VIEWS", "VIEW_RECIPES"]

logger = logging.getLogger(__name__)

DEFAULT_FOLDER = "kinetics400"
OFFICIAL_SPLITS = ("train", "val")
TRAINING_SPLITS = ("train",)
DEFAULT_LEVELS = ("p5n",)
"""What a store keeps where nobody says: the last stage after the backbone's own norm (spec/heads.md 4)."""

_GET_IT = (
    "get the lists from github.com/cvdfoundation/kinetics-dataset and the clips they name, lay them out as "
    "videos/<label>/<youtube_id>_<start>_<end>.mp4 beside train.csv and val.csv, and pass the folder as DATA"
)
_VIDEO_ENDINGS = ("mp4", "mkv", "webm", "avi", "mov", "m4v", "flv", "wmv", "ts")
_NAMES_FILE = "label_map_k400.txt"
_LISTS = ("{}.csv", "kinetics-400_{}.csv", "kinetics400_{}.csv", "annotations/{}.csv")
_FILE_LISTS = ("kinetics400_{}_list_videos.txt", "{}_list_videos.txt", "{}.txt")
_FOLDERS = ("videos", "videos_{}", "{}")
_LABEL_DIGITS = 5
"""Longer numbers are no classes."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One video and its label as the list has it: a name, or a number from 0."""

    key: str
    video: ByteSource
    label: str


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
        # What says that rows are test rows: the same number, as no view changes what a video shows.
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
        subset: see stores.subset.

    Raises:
        DatasetLayoutError: `data` holds none of these, or none of the clips it lists.
        HostileTarError: see extract.tar_index.
    """
    tars = find_tars(str(data), split)
    if tars:
        folder, clips, labels = tars[0].parent, _from_tars(tars), set[str]()
    else:
        folder, clips, labels = _from_folder(Path(data), split)
    return K400(split, clips, _class_names(folder, labels or {clip.label for clip in clips}), subset)


def _class_names(folder: Path, labels: set[str]) -> list[str]:
    for place in (folder, folder.parent):
        if (place / _NAMES_FILE).is_file():
            lines = (place / _NAMES_FILE).read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip()]
    if not all(label.isdecimal() for label in labels):
        return sorted(labels)
    longest = max(labels, key=len)
    if len(longest) > _LABEL_DIGITS:
        raise DatasetLayoutError(f"{folder}: label {longest[:40]}, expected numbers of classes, or names")
    return [str(number) for number in range(max(map(int, labels)) + 1)]


def _from_folder(data: Path, split: str) -> tuple[Path, list[Clip], set[str]]:
    """The folder of the lists, the clips of a split, and every label that any list names."""
    if data.is_file():
        return data.parent, _from_file_list(data, split), set()
    for root in (data, data / DEFAULT_FOLDER):
        if table := _first_file(root, _LISTS, split):
            labels = {
                row["label"] for name in OFFICIAL_SPLITS for row in _rows(_first_file(root, _LISTS, name))
            }
            return root, _from_table(root, table, split), labels
        if listed := _first_file(root, _FILE_LISTS, split):
            lists = (_first_file(root, _FILE_LISTS, name) for name in OFFICIAL_SPLITS)
            labels = {label for each in lists if each for _, label in _lines(each)}
            return root, _from_file_list(listed, split), labels
    raise DatasetLayoutError(
        f"{data} is not Kinetics-400: looked for {split}.csv, kinetics400_{split}_list_videos.txt and tars, "
        f"there and in {data / DEFAULT_FOLDER}; {_GET_IT}"
    )


def _first_file(root: Path, patterns: Sequence[str], split: str) -> Path | None:
    paths = (root / pattern.format(split) for pattern in patterns)
    return next((path for path in paths if path.is_file()), None)


def _rows(table: Path | None) -> Iterator[dict[str, str]]:
    """The rows of an official csv. Raises DatasetLayoutError where columns are missing."""
    if table is None:
        return
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"label", "youtube_id", "time_start", "time_end"} - set(reader.fieldnames or ())
            if missing:
                raise DatasetLayoutError(f"{table} has no columns {', '.join(sorted(missing))}; {_GET_IT}")
            for row in reader:
                if None in row.values():
                    raise DatasetLayoutError(f"{table}: line {reader.line_num} has too few columns")
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetLayoutError(f"{table} cannot be read as a csv file: {error}") from None


def _from_table(root: Path, table: Path, split: str) -> list[Clip]:
    found = _videos(root, split)
    clips: dict[str, Clip] = {}
    listed = 0
    for row in _rows(table):
        if row.get("split", split) not in (split, "validate" if split == "val" else split):
            continue
        listed += 1
        times = (row["time_start"], row["time_end"])
        try:
            key = "_".join((row["youtube_id"], *map(_seconds, times)))
        except (ValueError, OverflowError):
            raise DatasetLayoutError(
                f"{table}: clip {row['youtube_id'][:40]} from {times[0][:40]!r} to {times[1][:40]!r}, "
                "expected seconds"
            ) from None
        if key in found:
            clips[key] = Clip(key, found[key], row["label"])
    if not clips:
        raise DatasetLayoutError(
            f"{root} has none of the {listed} clips of {table.name}; looked for "
            f"{root}/videos/<label>/<youtube_id>_<start>_<end>.mp4; {_GET_IT}"
        )
    if len(clips) < listed:
        logger.warning("%s lists %d clips, of which %d are there", table.name, listed, len(clips))
    return list(clips.values())


def _seconds(text: str) -> str:
    """A time of the csv as it stands in file names.

    >>> _seconds("24"), _seconds("0.0")
    ('000024', '000000')
    """
    return f"{int(float(text)):06d}"


def _videos(root: Path, split: str) -> dict[str, FileSource]:
    """Every video in the folders of a split and in the folders of classes in these, by its stem."""
    found: dict[str, FileSource] = {}
    for pattern in _FOLDERS:
        folder = root / pattern.format(split)
        if not folder.is_dir():
            continue
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            for path in sorted(place.iterdir()):
                if path.suffix[1:].lower() not in _VIDEO_ENDINGS or not path.is_file():
                    continue
                if path.stem in found and found[path.stem].path != path:
                    raise DatasetLayoutError(f"{path} and {found[path.stem].path} are the same clip twice")
                found[path.stem] = FileSource(path, path.stat().st_size)
    return found


def _lines(listed: Path) -> Iterator[tuple[str, str]]:
    """The paths and labels of mmaction's list."""
    try:
        text = listed.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DatasetLayoutError(f"{listed} cannot be read as a list of files: {error}") from None
    for line in text.splitlines():
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise DatasetLayoutError(f"{listed}: line {line[:120]!r}, expected a path, a blank and a number")
        yield name, label


def _from_file_list(listed: Path, split: str) -> list[Clip]:
    """The clips of mmaction's list: `path label`, the path from the list's folder or that of the videos."""
    clips: dict[str, Clip] = {}
    missing = []
    for name, label in _lines(listed):
        places = [listed.parent, *(listed.parent / folder.format(split) for folder in _FOLDERS)]
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            missing.append(name)
            continue
        if path.stem in clips:
            raise DatasetLayoutError(f"{listed}: two clips are named {path.stem}")
        clips[path.stem] = Clip(path.stem, FileSource(path, path.stat().st_size), label)
    if not clips:
        raise DatasetLayoutError(f"{listed} lists no clip that is there; {len(missing)} are missing")
    if missing:
        logger.warning("%s: %d clips are not there, such as %s", listed.name, len(missing), missing[0])
    return list(clips.values())


def _from_tars(tars: Sequence[Path]) -> list[Clip]:
    clips = []
    for key, members in tar_samples(tars).items():
        videos = [member for ending, member in members.items() if ending in _VIDEO_ENDINGS]
        label = members.get("cls") or members.get("txt")
        if label is None or len(videos) != 1:
            raise DatasetLayoutError(
                f"{tars[0].parent}: sample {key!r} has {', '.join(sorted(members))}; looked for one video "
                f"(.mp4) and its label (.cls or .txt) of each sample"
            )
        clips.append(Clip(key, videos[0], label.read(1 << 10).decode(errors="replace").strip()))
    return clips
