"""Source files of a folder, listed in one way for every data set.

Endings count in any case. Hidden files are left out, among them the `._name` twins that macOS writes on
foreign disks. A link to nothing is listed as a missing file, so that its record is reported. Names must be
UTF-8 without control characters: they become keys of records, and so part of a store.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.sources.byte_sources import ByteSource, FileSource, SourceError
from extract.sources.record import DatasetLayoutError
from stores.format.printable import escaped, has_control
from stores.format.row_table import UNDECODABLE

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
"""Of the images that are decoded, in lower case."""
VIDEO_ENDINGS = ("mp4", "mkv", "webm", "avi", "mov", "m4v", "flv", "wmv", "ts")
"""Of the videos that are decoded, in lower case."""
_NO_SOURCES = ("thumbs.db", "desktop.ini")
"""Left in folders by Windows."""


@dataclass(frozen=True, slots=True)
class MissingFile:
    """The place of a file that is not there; a ByteSource whose record is skipped, with this reason."""

    reason: str
    """One line without paths: it becomes part of a store."""
    size: int = 0

    def read(self, limit: int | None = None) -> bytes:
        raise SourceError(UNDECODABLE, self.reason)


@dataclass(frozen=True, slots=True)
class NoAnnotation:
    """The annotation of a record of a split without truth: no bytes; a ByteSource."""

    size: int = 0

    def read(self, limit: int | None = None) -> bytes:
        return b""


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderFiles:
    """The files of one folder, not of those below it; hidden ones are left out."""

    sizes: Mapping[str, int]
    """Bytes by name."""
    dangling: frozenset[str]
    """Names of links to nothing."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that people do not see.

    >>> is_hidden("._a.jpg"), is_hidden("__MACOSX"), is_hidden("a.jpg")
    (True, True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def folders_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """A folder and those in it, each with its path from there ("" for itself); hidden ones are left out."""
    for path, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not is_hidden(name))
        relative = Path(path).relative_to(folder).as_posix()
        yield "" if relative == "." else relative, Path(path)


def number_of(count: int, noun: str) -> str:
    """
    >>> number_of(1, "image"), number_of(2, "image")
    ('1 image', '2 images')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def require_printable(name: str, where: str | Path) -> None:
    """Raises DatasetLayoutError for a name that is not UTF-8, which a store cannot hold, or has control
    characters, which would reach terminals and logs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DatasetLayoutError(
            f"{where}: the name {os.fsencode(name)[:200]!r} is not UTF-8; rename the file"
        ) from None
    if has_control(name):
        raise DatasetLayoutError(
            f"{where}: the name '{escaped(name[:200])}' has control characters; rename the file"
        )


def folder_files(folder: Path) -> FolderFiles:
    """The files of a folder; none where there is no such folder. Raises OSError."""
    sizes, dangling = {}, set()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    dangling.add(entry.name)
    return FolderFiles(sizes=sizes, dangling=frozenset(dangling))


def holds_any(folder: Path, endings: Sequence[str]) -> bool:
    """Whether a folder holds a file with one of these endings, hidden ones left out; stops at the first."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(
            not is_hidden(entry.name) and entry.name.rpartition(".")[2].lower() in endings and entry.is_file()
            for entry in entries
        )


def sources_by_stem(
    folder: Path, endings: Sequence[str], kind: str, others: Counter[str] | None = None
) -> dict[str, ByteSource]:
    """The files of a folder that have one of these endings, by stem, in order; links to nothing are
    MissingFiles.

    Args:
        folder: none of it where there is no such folder.
        endings: in lower case, without their dot.
        kind: what the files are, such as "image", for reasons.
        others: counts files of other endings, for `report_others`; None: they are reported at once.

    Raises:
        DatasetLayoutError: two files of one stem, or a name that is not UTF-8.
        OSError: the folder could not be read.
    """
    files = folder_files(folder)
    found: dict[str, ByteSource] = {}
    name_of: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for name in sorted((*files.sizes, *files.dangling)):
        stem, dot, ending = name.rpartition(".")
        if not dot or ending.lower() not in endings:
            if name.lower() not in _NO_SOURCES:
                left_out[dot + ending.lower() if dot else "no ending"] += 1
            continue
        require_printable(name, folder)
        if stem in found:
            raise DatasetLayoutError(
                f"{folder} holds two files for record {stem!r}: {name_of[stem]} and {name}; keep one of them"
            )
        name_of[stem] = name
        is_there = name in files.sizes
        found[stem] = (
            FileSource(folder / name, files.sizes[name])
            if is_there
            else MissingFile(f"its {kind} {name[:200]} is a link to nothing")
        )
    if others is not None:
        others.update(left_out)
    elif found:
        report_others(folder, left_out)
    return found


def report_others(folder: Path, others: Counter[str]) -> None:
    """Warns of files that are left out, by their endings; of nothing where there are none."""
    if others:
        shown = ", ".join(f"{count} of {ending}" for ending, count in others.most_common(5))
        logger.warning("%s: files of other endings are left out: %s", folder, shown)


def paired(
    images: Mapping[str, ByteSource], annotations: Mapping[str, ByteSource], kind: str
) -> dict[str, tuple[ByteSource, ByteSource]]:
    """Images and annotations of one stem, in order. What lacks its counterpart stays, with a MissingFile.

    Args: kind: what an annotation is, such as "label map", for reasons.
    """
    no_image, no_annotation = MissingFile("its image is missing"), MissingFile(f"its {kind} is missing")
    return {
        key: (images.get(key, no_image), annotations.get(key, no_annotation))
        for key in sorted({*images, *annotations})
    }


def missing_reasons(pairs: Mapping[str, tuple[ByteSource, ...]]) -> dict[str, str]:
    """Why records cannot be used, by key, of those with a MissingFile."""
    return {
        key: source.reason
        for key, sources in pairs.items()
        for source in sources
        if isinstance(source, MissingFile)
    }
