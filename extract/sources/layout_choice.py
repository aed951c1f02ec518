"""Official folders or tars: which of them a data set is read from where both are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from extract.sources.listing import is_hidden
from extract.sources.tar_samples import find_tars

logger = logging.getLogger(__name__)

_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".rar", ".7z")


def choose_root(
    data: str | Path, split: str, default_folder: str, is_complete: Callable[[Path], bool]
) -> tuple[Path | None, list[Path]]:
    """The folder in the official layout, or the tars, to read; neither where there is neither.

    The official layout comes first; where tars are there too, a warning names both.

    Args:
        data: the official folder or its parent; or tars as `find_tars` takes them.
        split: picks the tars of a folder.
        default_folder: official name of the folder.
        is_complete: whether a folder holds the split in the official layout.

    Raises: as find_tars.
    """
    tars = find_tars(str(data), split)
    if str(data).lower().endswith(".tar"):
        return None, tars
    root = next((r for r in (Path(data), Path(data) / default_folder) if is_complete(r)), None)
    if root is None:
        if tars:
            logger.info("%s: reading %s", data, named(tars))
        return None, tars
    if tars:
        logger.warning(
            "%s holds the official folders and %s: the folders are read; pass a tar itself to read it",
            root,
            named(tars),
        )
    return root, []


def named(tars: Sequence[Path]) -> str:
    """Tars in a few words.

    >>> named([Path("d/a.tar"), Path("d/b.tar")])
    '2 tars (a.tar, b.tar)'
    """
    shown = ", ".join(tar.name for tar in tars[:3]) + (", ..." if len(tars) > 3 else "")
    return f"{len(tars)} {'tar' if len(tars) == 1 else 'tars'} ({shown})"


def archives_hint(data: Path) -> str:
    """Names archives in a folder that would have to be unpacked first; empty where there are none."""
    if not data.is_dir():
        return ""
    names = sorted(path.name for path in data.iterdir() if path.name.lower().endswith(_ARCHIVES))
    shown = [name for name in names if not is_hidden(name)][:3]
    return f"; {', '.join(shown)} would have to be unpacked first" if shown else ""
