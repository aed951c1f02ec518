"""Which files `predict` takes, and under which names it writes what it makes of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from extract.sources.listing import is_hidden
from pipelines.errors import UsageError

PICTURES = (".overlay.png", ".labels.png")
"""Endings of the pictures of a prediction, which stand beside its JSON: no sources of another one."""


def list_sources(source: Path, kind: str, endings: Sequence[str]) -> list[tuple[str, Path]]:
    """The sources of a file or folder, those below it too, with a name for the output of each.

    A name is the path below the folder with its separators turned to `__`; sources whose names would be equal
    keep their endings, or get a number. Hidden files and the pictures of earlier predictions are left out.
    Raises UsageError where there are none.
    """
    if source.is_file():
        return [(source.stem, source)]
    if not source.is_dir():
        raise UsageError(f"--input {source}: there is no such file or folder")
    paths = [path for path in _shown_below(source) if path.suffix.lower() in endings and path.is_file()]
    kept = [path for path in paths if not _is_prediction(path)]
    if not kept:
        predicted = f", {len(paths)} pictures of earlier predictions are left out" if paths else ""
        raise UsageError(f"--input {source}: no {kind} there (looked for {' '.join(endings)}){predicted}")
    stems = ["__".join(path.relative_to(source).with_suffix("").parts) for path in kept]
    return list(zip(unique_names(stems, [path.suffix for path in kept]), kept, strict=True))


def _shown_below(folder: Path) -> list[Path]:
    depth = len(folder.parts)
    return sorted(path for path in folder.rglob("*") if not any(map(is_hidden, path.parts[depth:])))


def _is_prediction(path: Path) -> bool:
    """Whether `predict` made this picture: its JSON stands beside it."""
    bases = [path.name.removesuffix(ending) for ending in PICTURES if path.name.endswith(ending)]
    return any(path.with_name(f"{base}.json").is_file() for base in bases)


def unique_names(stems: Sequence[str], endings: Sequence[str]) -> Iterator[str]:
    """One name a source: its stem, where no other source has it, else with its ending, else with a number.

    Stems that are unique by themselves always stay as they are.

    >>> list(unique_names(["a", "b", "b", "b"], [".jpg", ".jpg", ".png", ".png"]))
    ['a', 'b.jpg', 'b.png', 'b.png-2']
    """
    count_of = Counter(stems)
    taken = {stem for stem, count in count_of.items() if count == 1}
    for stem, ending in zip(stems, endings, strict=True):
        if count_of[stem] == 1:
            yield stem
            continue
        name, number = stem + ending, 2
        while name in taken:
            name, number = f"{stem}{ending}-{number}", number + 1
        taken.add(name)
        yield name
