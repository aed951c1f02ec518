"""Layouts of videos: class folders (`videofolder`), and lists with own labels (`videolist`).

A list is a csv file with a header, a json list of objects as Something-Something has it, or lines of a path
and a label. Clips that a list names and no folder has are left out and counted, as of Kinetics: many can no
longer be had.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from extract.datasets.layouts.k400_lists import Clip
from extract.datasets.layouts.labelled_videos import LabelledVideos
from extract.datasets.own.advice import DESCRIBE, contents
from extract.datasets.own.description import Description
from extract.datasets.own.label_lists import list_rows, read_names
from extract.sources.byte_sources import ByteSource
from extract.sources.listing import (
    VIDEO_ENDINGS,
    MissingFile,
    folders_below,
    is_hidden,
    number_of,
    report_others,
    require_printable,
    sources_by_stem,
)
from extract.sources.record import DatasetLayoutError
from extract.sources.text_lists import refuse_twins

logger = logging.getLogger(__name__)

_NUMBER_DIGITS = 5


def open_video_folders(
    description: Description, data: Path, split: str, subset: str | None
) -> LabelledVideos:
    """A split whose videos lie in folders of their classes.

    Raises DatasetLayoutError, which says what was looked for and found.
    """
    where, others = description.splits[split], Counter[str]()
    clips: dict[str, Clip] = {}
    for root in where["videos"]:
        for label, key, source in class_clips(data / root, others):
            if label in description.leave_out:
                continue
            if key in clips:
                raise DatasetLayoutError(f"{data}: video {key!r} is in two of {', '.join(where['videos'])}")
            clips[key] = Clip(key, source, label)
    report_others(data, others)
    if not clips:
        looked = f"{', '.join(where['videos'])}/<class>/*.mp4 (or another video)"
        raise _nothing(description, data, split, looked, where["videos"])
    labels = description.labels or sorted(
        label
        for paths in description.splits.values()
        for root in paths["videos"]
        for label in class_folders(data / root)
        if label not in description.leave_out
    )
    unknown = sorted({clip.label for clip in clips.values()} - set(labels))
    if unknown:
        raise DatasetLayoutError(
            f"{data}: folder {unknown[0]!r} holds videos and is none of the {len(labels)} `classes` of "
            f"{description.name}: add it there, or to `leave_out`; {DESCRIBE}"
        )
    return _opened(description, split, subset, clips.values(), tuple(dict.fromkeys(labels)), data)


def open_video_lists(description: Description, data: Path, split: str, subset: str | None) -> LabelledVideos:
    """A split whose videos are named by lists. Raises as `open_video_folders`."""
    where = description.splits[split]
    roots = [data / root for root in where.get("videos", (".",))]
    index = VideoIndex(roots)
    labels = description.labels or _named_labels(description, data)
    known = set(labels)
    clips: dict[str, Clip] = {}
    missing: list[str] = []
    for name in where["list"]:
        path = data / name
        for line, file, label in list_rows(description, path):
            require_printable(file, path)
            label = _without_brackets(label) if label not in known else label
            found = index.find(file, label)
            if found is None:
                missing.append(file)
                continue
            key, source = found
            if key in clips and clips[key].label != label:
                raise DatasetLayoutError(
                    f"{path}: line {line}: clip {key} has two labels, {clips[key].label!r} and {label!r}"
                )
            clips[key] = Clip(key, source, label)
    if not clips:
        such = f", such as {missing[0]}" if missing else ""
        looked = f"the {len(missing)} videos that {', '.join(where['list'])} lists{such}, in {_shown(roots)}"
        raise _nothing(description, data, split, looked, where.get("videos", (".",)))
    if missing:
        logger.warning(
            "%s lists %s that no folder has, such as %s: left out",
            *(", ".join(where["list"]), number_of(len(missing), "video"), missing[0]),
        )
    return _opened(description, split, subset, clips.values(), tuple(labels), data)


def _without_brackets(label: str) -> str:
    """Something-Something's templates mark what differs from video to video, its names of classes do not.

    >>> _without_brackets("Putting [something] onto [something]")
    'Putting something onto something'
    """
    return label.replace("[", "").replace("]", "")


def _opened(
    description: Description,
    split: str,
    subset: str | None,
    clips: Iterable[Clip],
    labels: Sequence[str],
    data: Path,
) -> LabelledVideos:
    names = description.class_names or tuple(labels)
    if len(names) < 2:
        raise DatasetLayoutError(
            f"{data}: {description.name} has {len(names)} of 2 or more classes: {', '.join(names)[:100]}; "
            f"{DESCRIBE}"
        )
    numbers = {label: number for number, label in enumerate(labels)}
    return LabelledVideos(
        description.name, split, split in description.training, tuple(clips), names, subset, numbers
    )


def class_folders(root: Path) -> list[str]:
    """Names of the folders directly in a folder, sorted; hidden ones are left out."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def class_clips(root: Path, others: Counter[str]) -> Iterator[tuple[str, str, ByteSource]]:
    """The class folder, key (its path without ending) and file of every video in class folders.

    Args: others: counts files of other endings.
    """
    for label in class_folders(root):
        for below, path in folders_below(root / label):
            for stem, source in sources_by_stem(path, VIDEO_ENDINGS, "video", others).items():
                yield label, "/".join(part for part in (label, below, stem) if part), source


class VideoIndex:
    """The videos below some folders, by path and by name."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._by_path: dict[str, ByteSource] = {}
        self._by_stem: dict[str, list[str]] = {}
        for root in roots:
            for below, path in folders_below(root):
                for stem, source in sources_by_stem(path, VIDEO_ENDINGS, "video", Counter()).items():
                    if isinstance(source, MissingFile):
                        continue
                    key = f"{below}/{stem}" if below else stem
                    self._by_path.setdefault(key, source)
                    self._by_stem.setdefault(stem, []).append(key)

    def find(self, file: str, label: str) -> tuple[str, ByteSource] | None:
        """Key and file of a clip named by its path or its name, with or without ending."""
        path = PurePosixPath(file.replace("\\", "/"))
        name = str(path.with_suffix("")) if path.suffix[1:].lower() in VIDEO_ENDINGS else str(path)
        for key in (name, f"{label}/{name}"):
            if key in self._by_path:
                return key, self._by_path[key]
        keys = self._by_stem.get(PurePosixPath(name).name, [])
        return (keys[0], self._by_path[keys[0]]) if len(keys) == 1 else None


def _named_labels(description: Description, data: Path) -> list[str]:
    """The labels in the order of their classes: of the file `names`, else those of all lists, sorted."""
    if description.names:
        return read_names(data / description.names)
    found = {
        label
        for where in description.splits.values()
        for name in where["list"]
        if (data / name).is_file()
        for _, _, label in list_rows(description, data / name)
        if label
    }
    if all(label.isdecimal() and len(label) <= _NUMBER_DIGITS for label in found) and found:
        return [str(number) for number in range(max(map(int, found)) + 1)]
    refuse_twins(sorted(found), data)
    return sorted(found)


def _nothing(
    description: Description, data: Path, split: str, looked: str, roots: Sequence[str]
) -> DatasetLayoutError:
    absent = next((data / root for root in roots if not (data / root).is_dir()), data / roots[0])
    return DatasetLayoutError(
        f"{data}: split {split} of {description.name}: looked for {looked}, found none; {contents(absent)}; "
        f"{DESCRIBE}"
    )


def _shown(roots: Sequence[Path]) -> str:
    return ", ".join(map(str, roots))
