"""Which files `predict` takes, and under which names it writes what it makes of each."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from extract.sources.listing import is_hidden
from pipelines.errors import UsageError

_NAME_BYTES = 200
"""File names have 255 bytes in most file systems."""
PICTURES = (".overlay.png", ".labels.png", ".depth.png")
"""Endings of the pictures of a prediction, which stand beside its JSON: no sources of another one."""


def list_sources(
    source: Path, kind: str, endings: Sequence[str], written_to: Path | None = None
) -> list[tuple[str, Path]]:
    """The sources of a file or folder, those below it too, with a name for the output of each.

    A name is the path below the folder with its separators turned to `__`; sources whose names would be equal
    keep their endings, or get a number. Hidden files and the pictures of earlier predictions are left out.

    Args:
        written_to: the output folder; where it lies below `source`, nothing in it is a source.

    Raises UsageError where there are none.
    """
    if not source.is_dir():
        if not source.exists():
            raise UsageError(f"--input {source}: there is no such file or folder")
        return [(source.stem, source)]  # a pipe too: its prediction says why it cannot be read
    paths = [path for path in _shown_below(source) if path.suffix.lower() in endings and path.is_file()]
    own = None if written_to is None else written_to.resolve()
    is_below = own is not None and source.resolve() in own.parents
    kept = [
        path for path in paths if not (_is_prediction(path) or (is_below and own in path.resolve().parents))
    ]
    if not kept:
        predicted = f", {len(paths)} pictures of earlier predictions are left out" if paths else ""
        raise UsageError(f"--input {source}: no {kind} there (looked for {' '.join(endings)}){predicted}")
    stems = [_short("__".join(path.relative_to(source).with_suffix("").parts)) for path in kept]
    return list(zip(unique_names(stems, [path.suffix for path in kept]), kept, strict=True))


def _short(stem: str) -> str:
    """A stem that leaves room for endings in a file name: its end, and a digest of the whole."""
    encoded = os.fsencode(stem)
    if len(encoded) <= _NAME_BYTES:
        return stem
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{digest}-{os.fsdecode(encoded[-_NAME_BYTES // 2 :]).lstrip('.')}"


def _shown_below(folder: Path) -> list[Path]:
    depth = len(folder.parts)
    return sorted(path for path in folder.rglob("*") if not any(map(is_hidden, path.parts[depth:])))


def _is_prediction(path: Path) -> bool:
    """Whether `predict` made this picture: its JSON stands beside it."""
    bases = [path.name.removesuffix(ending) for ending in PICTURES if path.name.endswith(ending)]
    return any(path.with_name(f"{base}.json").is_file() for base in bases)


def unique_names(stems: Sequence[str], endings: Sequence[str]) -> Iterator[str]:
    """One name a source: its stem, where no other source has it, else with its ending, else with a number.

    Stems that are unique by themselves always stay as they are. Names that differ in capitals alone are equal
    to some file systems, and so here.

    >>> list(unique_names(["a", "b", "b", "b"], [".jpg", ".jpg", ".png", ".png"]))
    ['a', 'b.jpg', 'b.png', 'b.png-2']
    """
    folded = [stem.casefold() for stem in stems]
    count_of = Counter(folded)
    taken = {stem for stem, count in count_of.items() if count == 1}
    for stem, fold, ending in zip(stems, folded, endings, strict=True):
        if count_of[fold] == 1:
            yield stem
            continue
        name, number = stem + ending, 2
        while name.casefold() in taken:
            name, number = f"{stem}{ending}-{number}", number + 1
        taken.add(name.casefold())
        yield name
