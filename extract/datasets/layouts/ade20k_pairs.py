"""The images and label maps of a split of ADE20K: from the official folders or from tars, in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from extract.datasets.layouts.label_maps import Pair
from extract.sources.byte_sources import ByteSource
from extract.sources.layout_choice import archives_hint, choose_root, named
from extract.sources.listing import (
    IMAGE_ENDINGS,
    holds_any,
    missing_reasons,
    paired,
    sources_by_stem,
)
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_samples import tar_samples

FOLDER = "ADEChallengeData2016"
Sources = dict[str, ByteSource]
"""By key."""

_GET_IT = (
    "get ADEChallengeData2016.zip from the official site, sceneparsing.csail.mit.edu (direct: "
    "data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip), unpack it and pass the folder as DATA"
)
_ANNOTATION_ENDINGS = ("seg.png", "png")


def listed_pairs(data: str | Path, split: str) -> list[Pair]:
    """The pairs of a split; what lacks its counterpart is there too, with a MissingFile.

    Args and Raises: as extract.datasets.ade20k.open_dataset.
    """
    root, tars = choose_root(data, split, FOLDER, lambda folder: _is_official(folder, split))
    if root is not None:
        where, (images, annotations) = f"{root} ({split})", _from_folder(root, split)
    elif tars:
        where, (images, annotations) = f"{tars[0].parent}: {named(tars)}", _from_tars(tars)
    else:
        raise DatasetLayoutError(_what_is_missing(Path(data), split))
    pairs = paired(images, annotations, "label map")
    if len(missing_reasons(pairs)) == len(pairs):
        raise DatasetLayoutError(
            f"{where}: none of the {len(images)} images has a label map of its name (.png; found "
            f"{len(annotations)} others); {_GET_IT}"
        )
    return [Pair(key, *pair) for key, pair in pairs.items()]


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    return root / "images" / split, root / "annotations" / split


def _is_official(root: Path, split: str) -> bool:
    images, annotations = _folders(root, split)
    return holds_any(images, IMAGE_ENDINGS) and holds_any(annotations, ("png",))


def _from_folder(root: Path, split: str) -> tuple[Sources, Sources]:
    images, annotations = _folders(root, split)
    return (
        sources_by_stem(images, IMAGE_ENDINGS, "image"),
        sources_by_stem(annotations, ("png",), "label map"),
    )


def _from_tars(tars: Sequence[Path]) -> tuple[Sources, Sources]:
    images: Sources = {}
    annotations: Sources = {}
    for key, members in tar_samples(tars).items():
        annotation = next((members[ending] for ending in _ANNOTATION_ENDINGS if ending in members), None)
        found = [members[e] for e in IMAGE_ENDINGS if e in members and members[e] is not annotation]
        if len(found) > 1:
            raise DatasetLayoutError(
                f"{tars[0].parent}: sample {key!r} has {', '.join(sorted(members))}; looked for one image "
                f"(.jpg) and one label map (.png or .seg.png) of each sample"
            )
        if found:
            images[key] = found[0]
        if annotation is not None:
            annotations[key] = annotation
    return images, annotations


def _what_is_missing(data: Path, split: str) -> str:
    root = next((r for r in (data, data / FOLDER) if (r / "images").is_dir()), data)
    images, annotations = _folders(root, split)
    counts = [len(each) for each in _from_folder(root, split)]
    return (
        f"{data} is not ADE20K: looked for {images}/*.jpg and {annotations}/*.png, found {counts[0]} and "
        f"{counts[1]} of them; looked for {data / FOLDER} and for tars too{archives_hint(data)}; "
        f"{_GET_IT}"
    )
