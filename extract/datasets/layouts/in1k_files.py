"""The photographs of a split of ImageNet-1K: class folders, Kaggle's folders and csv, the devkit's list, or
tars."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.datasets.layouts.labelled_images import LabelledImage, images_of_tars
from extract.sources.layout_choice import archives_hint, choose_root
from extract.sources.listing import IMAGE_ENDINGS, holds_any, is_hidden, sources_by_stem
from extract.sources.record import DatasetLayoutError
from extract.sources.text_lists import read_lines, read_rows

FOLDER = "imagenet"
SPLITS = ("train", "val")
_GET_IT = (
    "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org, unpack the first one and "
    "the tars in it into train/<WordNet id>/, the second one into val/, and pass their folder as DATA"
)
_PLACES = ("", FOLDER, "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_SYNSET = re.compile(r"n\d{8}")
_KAGGLE = "LOC_{}_solution.csv"
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_LABELS = (
    "looked for LOC_val_solution.csv, or ILSVRC2012_validation_ground_truth.txt and meta.mat of the devkit"
)


def listed_photographs(data: str | Path, split: str, synsets: Sequence[str]) -> list[LabelledImage]:
    """The photographs of a split; labels are WordNet ids, in tars numbers.

    Args and Raises: as extract.datasets.in1k.open_dataset.
    """
    root, tars = choose_root(data, split, FOLDER, lambda folder: _split_folder(folder, split) is not None)
    if tars:
        return list(images_of_tars(tars))
    folder = _split_folder(root, split) if root is not None else None
    if folder is None:
        raise DatasetLayoutError(
            f"{data} is not ImageNet-1K: looked for {split}/<WordNet id>/*.JPEG there and in "
            f"{', '.join(place for place in _PLACES if place)}, and for tars{archives_hint(Path(data))}; "
            f"{_GET_IT}"
        )
    if _class_folders(folder):
        return list(_in_class_folders(folder, synsets))
    return list(_flat(Path(data), folder))


def _split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split that holds class folders or photographs."""
    for place in _PLACES:
        folder = root / place / split
        if folder.is_dir() and (_class_folders(folder) or holds_any(folder, IMAGE_ENDINGS)):
            return folder
    return None


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _in_class_folders(folder: Path, synsets: Sequence[str]) -> Iterator[LabelledImage]:
    known = set(synsets)
    for place in _class_folders(folder):
        if place.name not in known:
            kind = "is none of ImageNet-1K's 1000 WordNet ids"
            raise DatasetLayoutError(
                f"{place} {kind}; other classes are own data: `python -m pipelines describe {folder.parent} "
                "--out my.yaml` writes their description"
            )
        for stem, source in sources_by_stem(place, IMAGE_ENDINGS, "image").items():
            yield LabelledImage(f"{place.name}/{stem}", source, place.name)


def _flat(data: Path, folder: Path) -> Iterator[LabelledImage]:
    """Photographs without class folders, as both downloads of the validation split have them."""
    images = sources_by_stem(folder, IMAGE_ENDINGS, "image")
    places = [*folder.parents[:4], data]
    labels = _kaggle_labels(places, folder.name) or _devkit_labels(places, images)
    if labels is None:
        raise DatasetLayoutError(
            f"{folder} holds photographs without class folders, and their labels were not found: {_LABELS} "
            f"there and above it; {_GET_IT}"
        )
    for stem, source in images.items():
        yield LabelledImage(stem, source, labels.get(stem, ""))


def _first(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((path for place in places for name in names if (path := place / name).is_file()), None)


def _kaggle_labels(places: Sequence[Path], split: str) -> Mapping[str, str] | None:
    path = _first(places, [_KAGGLE.format(split)])
    if path is None:
        return None
    rows = read_rows(path, ("ImageId", "PredictionString"))
    return {row["ImageId"]: row["PredictionString"].split(" ")[0] for _, row in rows}


def _devkit_labels(places: Sequence[Path], images: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Labels by the devkit's numbers, which are not those of the sorted WordNet ids."""
    found = [_first(places, [name, f"ILSVRC2012_devkit_t12/data/{name}"]) for name in (_DEVKIT, _META)]
    truth, meta = found
    if truth is None or meta is None:
        return None
    from scipy.io import loadmat  # late: of all layouts only this one needs it

    synsets = loadmat(meta, squeeze_me=True, struct_as_record=False)["synsets"]
    synset_of = {int(each.ILSVRC2012_ID): str(each.WNID) for each in synsets}
    numbers = [int(line) for line in read_lines(truth) if line]
    if len(numbers) != len(images):
        raise DatasetLayoutError(
            f"{truth} labels {len(numbers)} photographs, the folder holds {len(images)}: expected all of them"
        )
    return {stem: synset_of[number] for stem, number in zip(sorted(images), numbers, strict=True)}
