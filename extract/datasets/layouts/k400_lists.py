"""The clips of a split of Kinetics-400: from the official csv, mmaction's list of files, or tars."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.sources.byte_sources import ByteSource, FileSource
from extract.sources.layout_choice import archives_hint, choose_root
from extract.sources.listing import (
    VIDEO_ENDINGS,
    holds_any,
    is_hidden,
    number_of,
    report_others,
    sources_by_stem,
)
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_index import TarMember
from extract.sources.tar_samples import tar_samples
from extract.sources.text_lists import clean, read_lines, read_rows, refuse_twins

logger = logging.getLogger(__name__)

FOLDER = "kinetics400"
SPLITS = ("train", "val")
_GET_IT = (
    "get the lists from github.com/cvdfoundation/kinetics-dataset and the clips they name, lay them out as "
    "videos/<label>/<youtube_id>_<start>_<end>.mp4 beside train.csv and val.csv, and pass the folder as DATA"
)
_NAMES_FILE = "label_map_k400.txt"
_LISTS = ("{}.csv", "kinetics-400_{}.csv", "kinetics400_{}.csv", "annotations/{}.csv")
_FILE_LISTS = ("kinetics400_{}_list_videos.txt", "{}_list_videos.txt", "{}.txt")
_FOLDERS = ("videos", "videos_{}", "{}")
_LABEL_DIGITS = 5
"""Longer numbers are no class numbers."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One video and its label as the list has it: a name, or a number from 0."""

    key: str
    video: ByteSource
    label: str


def listed_clips(data: str | Path, split: str) -> tuple[list[Clip], list[str]]:
    """The clips of a split whose files exist, and the names of the classes in their order.

    Args and Raises: as extract.datasets.k400.open_dataset.
    """
    _, tars = choose_root(data, split, FOLDER, lambda folder: _is_official(folder, split))
    if tars:
        folder, clips, labels = tars[0].parent, _from_tars(tars), set[str]()
    else:
        folder, clips, labels = _from_folder(Path(data), split)
    return clips, _class_names(folder, labels or {clip.label for clip in clips})


def _class_names(folder: Path, labels: set[str]) -> list[str]:
    for place in (folder, folder.parent):
        path = place / _NAMES_FILE
        if path.is_file():
            names = [clean(line) for line in read_lines(path)]
            if "" in names:  # the classes below it would be given other numbers
                raise DatasetLayoutError(f"{path}: line {names.index('') + 1} is empty, expected a class")
            refuse_twins(names, path)
            return names
    if not all(label.isdecimal() for label in labels):
        refuse_twins(sorted(labels), folder)
        return sorted(labels)
    longest = max(labels, key=len)
    if len(longest) > _LABEL_DIGITS:
        raise DatasetLayoutError(f"{folder}: label {longest[:40]}, expected class numbers or names")
    return [str(number) for number in range(max(map(int, labels)) + 1)]


def _is_official(root: Path, split: str) -> bool:
    """Whether there is a list and a video that it may name."""
    if _first_file(root, (*_LISTS, *_FILE_LISTS), split) is None:
        return False
    return any(holds_any(place, VIDEO_ENDINGS) for place in (root, *_places(root, split)))


def _from_folder(data: Path, split: str) -> tuple[Path, list[Clip], set[str]]:
    """The folder of the lists, the clips of a split, and every label that any list names."""
    if data.is_file():
        return data.parent, _from_file_list(data, split), set()
    for root in (data, data / FOLDER):
        if table := _first_file(root, _LISTS, split):
            tables = [each for name in SPLITS if (each := _first_file(root, _LISTS, name))]
            rows = [row for each in tables for row in _rows(each)]
            return root, _from_table(root, table, split, rows), {row["label"] for row in rows}
        if listed := _first_file(root, _FILE_LISTS, split):
            lists = (_first_file(root, _FILE_LISTS, name) for name in SPLITS)
            labels = {label for each in lists if each for _, label in _lines(each)}
            return root, _from_file_list(listed, split), labels
    raise DatasetLayoutError(
        f"{data} is not Kinetics-400: looked for {split}.csv, kinetics400_{split}_list_videos.txt and tars, "
        f"there and in {data / FOLDER}{archives_hint(data)}; {_GET_IT}"
    )


def _first_file(root: Path, patterns: Sequence[str], split: str) -> Path | None:
    paths = (root / pattern.format(split) for pattern in patterns)
    return next((path for path in paths if path.is_file()), None)


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """The rows of an official csv. Raises DatasetLayoutError where columns or labels are missing."""
    for line, row in read_rows(table, ("label", "youtube_id", "time_start", "time_end")):
        if not row["label"]:
            raise DatasetLayoutError(f"{table}: line {line} has no label")
        yield row


def _key(table: Path, row: Mapping[str, str]) -> str:
    """The stem of a row's file."""
    times = (row["time_start"], row["time_end"])
    try:
        return "_".join((row["youtube_id"], *map(_seconds, times)))
    except (ValueError, OverflowError):
        raise DatasetLayoutError(
            f"{table}: clip {row['youtube_id'][:40]} from {times[0][:40]!r} to {times[1][:40]!r}, "
            "expected seconds"
        ) from None


def _from_table(root: Path, table: Path, split: str, all_rows: Sequence[Mapping[str, str]]) -> list[Clip]:
    found = _videos(root, split)
    clips: dict[str, Clip] = {}
    listed = 0
    for row in _rows(table):
        if row.get("split", split) not in (split, "validate" if split == "val" else split):
            continue
        listed += 1
        key = _key(table, row)
        if key in found:
            _refuse_second_label(table, key, clips.get(key), row["label"])
            clips[key] = Clip(key, found[key], row["label"])
    if not clips:
        raise DatasetLayoutError(
            f"{root} has none of the {listed} clips of {table.name}; looked for "
            f"{root}/videos/<label>/<youtube_id>_<start>_<end>.mp4; {_GET_IT}"
        )
    if len(clips) < listed:
        logger.warning("%s lists %d clips, %d of them were found", table.name, listed, len(clips))
    unlisted = sorted(found.keys() - {_key(table, row) for row in all_rows})
    if unlisted:
        logger.warning(
            "%s: %s in no list, such as %s: left out",
            *(root, number_of(len(unlisted), "video"), unlisted[0]),
        )
    return list(clips.values())


def _refuse_second_label(where: Path, key: str, clip: Clip | None, label: str) -> None:
    if clip is not None and clip.label != label:
        raise DatasetLayoutError(
            f"{where}: clip {key} has two labels, {clip.label!r} and {label!r}; keep one of its lines"
        )


def _seconds(text: str) -> str:
    """A time of the csv as it stands in file names.

    >>> _seconds("24"), _seconds("0.0")
    ('000024', '000000')
    """
    return f"{int(float(text)):06d}"


def _places(root: Path, split: str) -> Iterator[Path]:
    """The folders of a split, and the folders of classes in these."""
    for pattern in _FOLDERS:
        folder = root / pattern.format(split)
        if folder.is_dir():
            yield folder
            yield from sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _videos(root: Path, split: str) -> dict[str, FileSource]:
    """Every video in the folders of a split and in the folders of classes in these, by its stem."""
    found: dict[str, FileSource] = {}
    dangling, others = [], Counter[str]()
    for place in _places(root, split):
        for key, source in sources_by_stem(place, VIDEO_ENDINGS, "video", others).items():
            if not isinstance(source, FileSource):
                dangling.append(key)
                continue
            if key in found and found[key].path != source.path:
                raise DatasetLayoutError(f"{source.path} and {found[key].path} are the same clip")
            found[key] = source
    report_others(root, others)
    if dangling:
        logger.warning(
            "%s: %s that links to nothing, such as %s",
            *(root, number_of(len(dangling), "name"), sorted(dangling)[0]),
        )
    return found


def _lines(listed: Path) -> Iterator[tuple[str, str]]:
    """The paths and labels of mmaction's list."""
    for line in read_lines(listed):
        if not line:
            continue
        name, *rest = line.rsplit(None, 1)
        if not rest or not rest[0].isdecimal():
            raise DatasetLayoutError(f"{listed}: line {line[:120]!r}, expected a path, a blank and a number")
        yield name, rest[0]


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
        earlier = clips.get(path.stem)
        if earlier is not None and earlier.video != FileSource(path, path.stat().st_size):
            raise DatasetLayoutError(f"{listed}: two clips are named {path.stem}; rename one of the files")
        _refuse_second_label(listed, path.stem, earlier, label)
        clips[path.stem] = Clip(path.stem, FileSource(path, path.stat().st_size), label)
    if not clips:
        raise DatasetLayoutError(f"{listed}: none of the {len(missing)} listed clips was found")
    if missing:
        logger.warning("%s: %d clips are missing, such as %s", listed.name, len(missing), missing[0])
    return list(clips.values())


def _from_tars(tars: Sequence[Path]) -> list[Clip]:
    clips = []
    for key, members in tar_samples(tars).items():
        videos = [member for ending, member in members.items() if ending in VIDEO_ENDINGS]
        label = members.get("cls") or members.get("txt")
        if label is None or len(videos) != 1:
            raise DatasetLayoutError(
                f"{tars[0].parent}: sample {key!r} has {', '.join(sorted(members))}; looked for one video "
                f"(.mp4) and its label (.cls or .txt) of each sample"
            )
        clips.append(Clip(key, videos[0], _label_of(label)))
    return clips


def _label_of(member: TarMember) -> str:
    try:
        label = clean(member.read(1 << 10).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetLayoutError(f"{member.tar}: {member.name} is no UTF-8 text: {error}") from None
    if not label:
        raise DatasetLayoutError(f"{member.tar}: {member.name} holds no label")
    return label
