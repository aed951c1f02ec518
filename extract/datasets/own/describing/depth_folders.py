"""Recognises folders of images and 16-bit depth maps, and reads the values of some maps."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from extract.datasets.own.describing.folder_look import (
    ONE_SPLIT,
    Draft,
    Folder,
    Look,
    few,
    split_name,
    training_splits,
)
from extract.sources.byte_sources import FileSource, SourceError, decode_label_values

_NAMES = ("depth", "disparity", "sync_depth")
"""How names of folders of depth maps begin."""
_SAMPLED = 40
"""Depth maps of all splits that are opened."""
_LEAST_VALUES, _LEAST_LARGEST = 32, 255
"""Different values of a depth map, at least, and what the largest exceeds."""
_UNITS_PER_M = 1000
_DEEPEST_M = 65.0


def depth_draft(look: Look) -> Draft | None:
    """A description of layout `depth`; None where no folder named after depth has maps beside images."""
    splits: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"images": [], "depths": []})
    counts: dict[str, int] = defaultdict(int)
    paths: list[Path] = []
    odd: list[str] = []
    for depths in look.folders:
        if not any(part.lower().startswith(_NAMES) for part in depths.path.split("/")) or not depths.pngs:
            continue
        images = _images_of(look, depths)
        if images is None:
            continue
        shown = (images.images or images.pngs).keys()
        both = sorted(shown & depths.pngs.keys())
        split = split_name([*images.path.split("/"), *depths.path.split("/")]) or "train"
        splits[split]["images"].append(images.path or ".")
        splits[split]["depths"].append(depths.path or ".")
        counts[split] += len(both)
        paths += [look.root / depths.path / depths.pngs[stem] for stem in both]
        for kind, lonely in (
            ("images without a depth map", sorted(shown - depths.pngs.keys())),
            ("depth maps without an image", sorted(depths.pngs.keys() - shown)),
        ):
            if lonely:
                odd.append(f"{len(lonely)} {kind} in {images.path or '.'}: {few(lonely)}")
    if not paths:
        return None
    largest = _largest(paths)
    if largest is None:
        return None
    draft = Draft(
        layout="depth",
        splits=dict(splits),
        training=training_splits(counts),
        classes={},
        class_counts={},
        odd=odd,
    )
    most_m = min(_DEEPEST_M, float(np.ceil(largest / _UNITS_PER_M)))
    draft.options = {"scale": _UNITS_PER_M, "invalid": 0, "max_depth": max(1.0, most_m)}
    draft.found.append(
        f"{', '.join(f'{split} {count}' for split, count in counts.items())} images with depth maps, values "
        f"up to {largest} in {min(len(paths), _SAMPLED)} of them"
    )
    draft.open.append(f"scale: values of one metre; {_UNITS_PER_M} (millimetres) is a guess, KITTI has 256")
    draft.open.append("invalid: the value where nothing was measured; 0 is a guess")
    if len(splits) == 1:
        draft.open.append(ONE_SPLIT)
    return draft


def _images_of(look: Look, depths: Folder) -> Folder | None:
    """The folder of most images of equal names, half of the depth maps at least."""
    found = [
        (len((each.images or each.pngs).keys() & depths.pngs.keys()), _alike(each.path, depths.path), number)
        for number, each in enumerate(look.folders)
        if each is not depths and not any(part.lower().startswith(_NAMES) for part in each.path.split("/"))
    ]
    best = max(found, default=(0, 0, 0))
    return look.folders[best[2]] if 2 * best[0] >= len(depths.pngs) > 0 else None


def _alike(one: str, other: str) -> int:
    return len(set(one.split("/")) & set(other.split("/")))


def _largest(paths: list[Path]) -> int | None:
    """The largest value of some depth maps; None where they are label maps, or none can be read."""
    largest, values = 0, 0
    for place in np.unique(np.linspace(0, len(paths) - 1, min(_SAMPLED, len(paths))).astype(int)):
        path = paths[int(place)]
        try:
            found = decode_label_values(FileSource(path, path.stat().st_size).read())
        except SourceError:
            continue
        largest, values = max(largest, int(found.max())), max(values, len(np.unique(found)))
    return largest if values >= _LEAST_VALUES and largest > _LEAST_LARGEST else None
