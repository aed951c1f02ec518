"""Lists of images and their depth maps, one pair a line, as BTS and MIM-Depth-Estimation write them.

A line is "<image> <depth map> [<focal length>]"; paths may begin with a slash, and `None` stands for a depth
map that was never annotated, as of 45 of the 697 test images of KITTI's Eigen split.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from extract.datasets.layouts.label_maps import Pair
from extract.sources.byte_sources import ByteSource, FileSource
from extract.sources.listing import MissingFile, require_printable
from extract.sources.record import DatasetLayoutError
from extract.sources.text_lists import read_lines

logger = logging.getLogger(__name__)

_FIELDS = (2, 3)


def find_list(data: Path, names: Sequence[str]) -> Path | None:
    """The first of these list files in a folder."""
    return next((data / name for name in names if (data / name).is_file()), None)


def listed_depths(listed: Path, image_roots: Sequence[Path], depth_roots: Sequence[Path]) -> list[Pair]:
    """The pairs of a list; a file that is in none of its roots is a record that is skipped.

    Raises DatasetLayoutError, naming the line, for one that is no pair, leaves the folder or comes twice.
    """
    pairs: dict[str, Pair] = {}
    without = 0
    for number, line in enumerate(read_lines(listed), start=1):
        if not line:
            continue
        parts = line.split()
        if len(parts) not in _FIELDS:
            raise DatasetLayoutError(
                f"{listed}: line {number}: {line[:120]!r}, expected the paths of an image and its depth map, "
                "and perhaps a focal length"
            )
        if parts[1] == "None":
            without += 1
            continue
        image, depth = (_below(path, listed, number) for path in parts[:2])
        key = str(PurePosixPath(image).with_suffix(""))
        require_printable(key, listed)
        if key in pairs:
            raise DatasetLayoutError(f"{listed}: line {number}: {key!r} is listed twice")
        pairs[key] = Pair(key, _found(image_roots, image, "image"), _found(depth_roots, depth, "depth map"))
    if without:
        logger.info("%s: %d of %d images have no depth map", listed, without, without + len(pairs))
    return list(pairs.values())


def _below(path: str, listed: Path, number: int) -> str:
    relative = PurePosixPath(path.lstrip("/"))
    if ".." in relative.parts or not relative.parts:
        raise DatasetLayoutError(f"{listed}: line {number}: {path[:120]!r}, expected a path below the data")
    return str(relative)


def _found(roots: Sequence[Path], path: str, kind: str) -> ByteSource:
    for root in roots:
        try:
            return FileSource(root / path, (root / path).stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return MissingFile(f"its {kind} is missing")


def refuse_empty(pairs: Sequence[Pair], where: str, looked: str) -> None:
    """Raises DatasetLayoutError where no image has its depth map."""
    if not any(not isinstance(s, MissingFile) for pair in pairs for s in (pair.annotation,)) or not any(
        not isinstance(pair.image, MissingFile) for pair in pairs
    ):
        raise DatasetLayoutError(f"{where}: looked for {looked}; none of the {len(pairs)} pairs is there")
