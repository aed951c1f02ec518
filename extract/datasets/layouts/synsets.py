"""ImageNet's synsets: WordNet ids and names, from the files that timm ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from extract.sources.record import DatasetLayoutError


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet-1K in the order of its labels. Raises DatasetLayoutError without
    timm's files."""
    path = _info("imagenet_synsets.txt")
    if path is None:
        raise DatasetLayoutError("ImageNet's list of classes is read from timm's files: pip install timm")
    return tuple(path.read_text(encoding="utf-8").split())


def short_names(synsets: Sequence[str]) -> list[str] | None:
    """The first name of each WordNet id, with the id where two are alike; None for an unknown id.

    >>> short_names(["n01440764", "n02012849", "n03126707"])
    ['tench', 'crane (n02012849)', 'crane (n03126707)']
    """
    known = _names()
    if not all(synset in known for synset in synsets):
        return None
    first = [known[synset].split(",")[0].strip() for synset in synsets]
    return [
        name if first.count(name) == 1 else f"{name} ({synset})"
        for name, synset in zip(first, synsets, strict=True)
    ]


@cache
def _names() -> Mapping[str, str]:
    path = _info("imagenet_synset_to_lemma.txt")
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None else []
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def _info(name: str) -> Path | None:
    """A file of timm's, without loading timm, which takes seconds."""
    spec = find_spec("timm")
    places = (spec.submodule_search_locations or ()) if spec is not None else ()
    paths = (Path(place) / "data" / "_info" / name for place in places)
    return next((path for path in paths if path.is_file()), None)
