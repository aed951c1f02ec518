"""The clips of a split of Kinetics-400: from the official csv, mmaction's list of files, or tars."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.sources.byte_sources import ByteSource, FileSource
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_samples import find_tars, tar_samples

logger = logging.getLogger(__name__)

FOLDER = "kinetics400"
SPLITS = ("train", "val")
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


def listed_clips(data: str | Path, split: str) -> tuple[list[Clip], list[str]]:
    """The clips of a split that are there, and the names of the classes in their order.

    Args and Raises: as extract.datasets.k400.open_dataset.
    """
    tars = find_tars(str(data), split)
    if tars:
        folder, clips, labels = tars[0].parent, _from_tars(tars), set[str]()
    else:
        folder, clips, labels = _from_folder(Path(data), split)
    return clips, _class_names(folder, labels or {clip.label for clip in clips})


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
    for root in (data, data / FOLDER):
        if table := _first_file(root, _LISTS, split):
            labels = {row["label"] for name in SPLITS for row in _rows(_first_file(root, _LISTS, name))}
            return root, _from_table(root, table, split), labels
        if listed := _first_file(root, _FILE_LISTS, split):
            lists = (_first_file(root, _FILE_LISTS, name) for name in SPLITS)
            labels = {label for each in lists if each for _, label in _lines(each)}
            return root, _from_file_list(listed, split), labels
    raise DatasetLayoutError(
        f"{data} is not Kinetics-400: looked for {split}.csv, kinetics400_{split}_list_videos.txt and tars, "
        f"there and in {data / FOLDER}; {_GET_IT}"
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
            raise DatasetLayoutError(f"{listed}: two clips are named {path.stem}; rename one of the files")
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
