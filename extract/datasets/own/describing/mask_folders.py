"""Recognises folders of images and masks, and reads the values of some masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from extract.datasets.own.describing.folder_look import (
    NAME_FILES,
    ONE_SPLIT,
    Draft,
    Folder,
    Look,
    few,
    split_name,
    training_splits,
)
from extract.sources.byte_sources import FileSource, SourceError, decode_label_values, image_size
from extract.sources.record import DatasetLayoutError
from extract.sources.text_lists import read_lines

_SAMPLED = 200
"""Masks of a split that are opened."""
_PROBED = 5
"""Masks of a folder that are opened to see whether they are label maps."""
_SEPARATORS = "_-. "
_MASK_FOLDERS = ("mask", "label", "annotation", "ann_dir", "segmentation", "gt")
"""How names of folders of masks begin."""
_MOST_VALUES = 255
_IGNORED = 255


def mask_draft(look: Look) -> Draft | None:
    """A description of layout `masks`; None where no folder of images has one of masks beside it."""
    matches = _matches(look)
    if not matches:
        _refuse_coloured(look)
        return None
    splits: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"images": [], "masks": []})
    keys: dict[str, dict[str, tuple[Path, Path]]] = defaultdict(dict)
    odd: list[str] = []
    suffixes = {(image_suffix, mask_suffix) for _, _, image_suffix, mask_suffix in matches}
    image_suffix, mask_suffix = max(suffixes, key=[match[2:] for match in matches].count)
    for images, masks, *match_suffixes in matches:
        if tuple(match_suffixes) != (image_suffix, mask_suffix):
            odd.append(f"{images.path or '.'}: names end otherwise than elsewhere: left out")
            continue
        split = _split_of(images.path, masks.path) or "train"
        for key, folder in (("images", images.path), ("masks", masks.path)):
            splits[split][key].append(folder or ".")
        of_images, of_masks = _stems(images, masks, image_suffix, mask_suffix)
        for stem in sorted(of_images.keys() & of_masks.keys()):
            keys[split][stem] = (
                look.root / images.path / of_images[stem],
                look.root / masks.path / of_masks[stem],
            )
        for kind, lonely in (
            ("images without a mask", sorted(of_images.keys() - of_masks.keys())),
            ("masks without an image", sorted(of_masks.keys() - of_images.keys())),
        ):
            if lonely:
                odd.append(f"{len(lonely)} {kind} in {images.path or '.'}: {few(lonely)}")
    found = {split: {key: list(paths) for key, paths in where.items()} for split, where in splits.items()}
    if len(found) == 1:
        found, keys = _by_lists(look, found, keys)
    draft = Draft(
        layout="masks",
        splits=found,
        training=training_splits({split: len(pairs) for split, pairs in keys.items()}),
        classes={},
        class_counts={},
        odd=odd,
    )
    if image_suffix or mask_suffix:
        draft.options = {"image_suffix": image_suffix, "mask_suffix": mask_suffix}
    if len(found) == 1:
        draft.open.append(ONE_SPLIT)
    _read_masks(draft, look, keys)
    return draft


def _matches(look: Look) -> list[tuple[Folder, Folder, str, str]]:
    """Folders of images, each with its folder of masks and the suffixes of both."""
    known: dict[tuple[str, str], bool] = {}

    def holds_label_maps(folder: Folder, suffix: str) -> bool:
        if (folder.path, suffix) not in known:
            known[folder.path, suffix] = _holds_label_maps(look.root, folder, suffix)
        return known[folder.path, suffix]

    found = []
    for images in look.folders:
        best: tuple[float, tuple[Folder, Folder, str, str]] | None = None
        for masks in look.folders:
            if not masks.pngs or (masks is images and not images.images):
                continue
            if masks is not images and not images.images and holds_label_maps(images, ""):
                continue
            for suffixes in _suffixes(images, masks):
                of_images, of_masks = _stems(images, masks, *suffixes)
                both = len(of_images.keys() & of_masks.keys())
                share = both / max(1, len(of_images)) + 0.01 * _alike(images.path, masks.path)
                enough = 2 * both >= len(of_images) > 0 and (best is None or share > best[0])
                if enough and holds_label_maps(masks, suffixes[1]):
                    best = share, (images, masks, *suffixes)
        if best is not None:
            found.append(best[1])
    return found


def _refuse_coloured(look: Look) -> None:
    """Raises DatasetLayoutError where a folder named after masks has pictures of the images' names."""
    for masks in look.folders:
        named = any(part.lower().startswith(_MASK_FOLDERS) for part in masks.path.split("/"))
        pictures = {**masks.images, **masks.pngs}
        for images in look.folders if named else ():
            shared = pictures.keys() & {**images.images, **images.pngs}.keys()
            if images is masks or 2 * len(shared) < len(pictures):
                continue
            raise DatasetLayoutError(
                f"{look.root}: {masks.path} has the names of the images in {images.path or '.'}, but no "
                f"masks: {pictures[min(shared)]} is no PNG with one value a pixel (gray of 1 to 16 bits, or "
                "with a palette); convert its colours into numbers of classes first (layout masks)"
            )


def _alike(one: str, other: str) -> int:
    return len(set(one.split("/")) & set(other.split("/")))


def _suffixes(images: Folder, masks: Folder) -> list[tuple[str, str]]:
    """What stems of images and of their masks may end with, the likeliest first."""
    own = images.images or images.pngs
    if own.keys() & masks.pngs.keys():
        return [("", "")]
    found = []
    for end in _ends(_common_end(list(own)) if len(own) > 1 else ""):
        stems = {stem[: len(stem) - len(end)] for stem in own}
        after = Counter(rest for mask in masks.pngs if (rest := _after_stem(mask, stems - {""})) is not None)
        ends = [(end, rest) for rest, count in after.items() if 2 * count >= len(stems)]
        found += sorted(ends, key=lambda pair: (_unlikely(pair[1]), pair[1]))
    return found


def _ends(common: str) -> list[str]:
    """What the ends of names may be, of what all have in common: nothing, or from a separator on.

    >>> _ends("_000019_leftImg8bit")
    ['', '_leftImg8bit', '_000019_leftImg8bit']
    """
    starts = [place for place, letter in enumerate(common) if letter in _SEPARATORS]
    ends = [common[place:] for place in reversed(starts)]
    return list(dict.fromkeys(["", *ends, common]))


def _after_stem(mask: str, stems: Collection[str]) -> str | None:
    """What follows the longest of the stems that a mask's name begins with; None without any.

    >>> _after_stem("a_1_label", {"a", "a_1"})
    '_label'
    """
    return next((mask[length:] for length in range(len(mask), 0, -1) if mask[:length] in stems), None)


def _unlikely(suffix: str) -> int:
    """Several kinds of masks may lie in one folder, as in Cityscapes: labels are preferred to instances."""
    lower = suffix.lower()
    return 0 if "label" in lower else 2 if "instance" in lower or "color" in lower else 1


def _common_end(stems: Sequence[str]) -> str:
    """
    >>> _common_end(["a_mask", "b_mask"])
    '_mask'
    """
    shortest = min(stems, key=len)
    lengths = range(len(shortest), 0, -1)
    return next((shortest[-n:] for n in lengths if all(stem.endswith(shortest[-n:]) for stem in stems)), "")


def _stems(
    images: Folder, masks: Folder, image_suffix: str, mask_suffix: str
) -> tuple[dict[str, str], dict[str, str]]:
    """File names by stem without its suffix."""
    return tuple(  # type: ignore[return-value]
        {stem[: len(stem) - len(end)]: name for stem, name in names.items() if stem.endswith(end)}
        for names, end in ((images.images or images.pngs, image_suffix), (masks.pngs, mask_suffix))
    )


def _holds_label_maps(root: Path, folder: Folder, suffix: str) -> bool:
    """Whether the first masks of a folder with that end of their names hold one value a pixel, and few
    values: photographs do not."""
    names = [name for stem, name in folder.pngs.items() if stem.endswith(suffix)]
    for name in names[:_PROBED]:
        try:
            values = decode_label_values((root / folder.path / name).read_bytes())
        except SourceError:
            return False
        if len(np.unique(values)) > max(64, values.size // 64):
            return False
    return bool(names)


def _split_of(images: str, masks: str) -> str | None:
    shared = [part for part in images.split("/") if part in masks.split("/") and part]
    return split_name(shared) or split_name(images.split("/")) or (shared[-1] if shared else None)


def _by_lists(
    look: Look, found: dict[str, dict[str, list[str]]], keys: Mapping[str, dict[str, tuple[Path, Path]]]
) -> tuple[dict[str, dict[str, list[str]]], dict[str, dict[str, tuple[Path, Path]]]]:
    """The splits of text files that list most stems of the only split; unchanged where there are none."""
    ((where, pairs),) = zip(found.values(), keys.values(), strict=True)
    listed: dict[str, dict[str, list[str]]] = {}
    of_lists: dict[str, dict[str, tuple[Path, Path]]] = {}
    for path in look.lists:
        name = Path(path).stem
        if not path.endswith(".txt") or split_name([name]) is None:
            continue
        stems = {Path(line.split()[0]).stem for line in read_lines(look.root / path) if line}
        if stems and 2 * len(stems & pairs.keys()) >= len(stems):
            listed[name] = {**where, "list": [path]}
            of_lists[name] = {stem: pairs[stem] for stem in sorted(stems & pairs.keys())}
    return (listed, of_lists) if listed else (found, dict(keys))


def _read_masks(draft: Draft, look: Look, keys: Mapping[str, Mapping[str, tuple[Path, Path]]]) -> None:
    """Fills in classes, counts, sizes and odd files of a draft."""
    pixels: Counter[int] = Counter()
    images_with: Counter[int] = Counter()
    opened = 0
    for split, pairs in keys.items():
        sizes: Counter[tuple[int, int]] = Counter()
        step = max(1, len(pairs) // _SAMPLED)
        for key, (image, mask) in list(pairs.items())[::step]:
            try:
                hw = image_size(FileSource(image, image.stat().st_size))
                values = decode_label_values(mask.read_bytes())
            except SourceError as error:
                draft.odd.append(f"{key}: {error.reason}")
                continue
            if values.shape != hw:
                draft.odd.append(
                    f"{key}: mask of {values.shape[1]}x{values.shape[0]}, image of {hw[1]}x{hw[0]} pixels"
                )
            sizes[hw] += 1
            opened += 1
            there, counts = np.unique(values, return_counts=True)
            pixels.update(dict(zip(there.tolist(), counts.tolist(), strict=True)))
            images_with.update(there.tolist())
        shown = ", ".join(f"{w}x{h} ({count})" for (h, w), count in sizes.most_common(3))
        more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
        draft.found.append(f"{split}: {len(pairs)} pairs of an image and a mask; pixels {shown}{more}")
    draft.found.append(f"{opened} masks were opened; {_listed(sorted(pixels))}")
    _name_values(draft, look, pixels)
    total = sum(pixels.values())
    draft.class_counts = {
        value: f"{pixels[value] / max(1, total):.1%} of the pixels, in {images_with[value]} masks"
        for value in draft.classes
    }


def _listed(values: Sequence[int], most: int = 40) -> str:
    """The values, of many the first.

    >>> _listed([0, 1, 7]), _listed(range(300), most=3)
    ('values 0, 1, 7', '300 values, 0, 1, 2 and others')
    """
    if len(values) <= most:
        return f"values {', '.join(map(str, values))}"
    return f"{len(values)} values, {', '.join(map(str, values[:most]))} and others"


def _name_values(draft: Draft, look: Look, pixels: Mapping[int, int]) -> None:
    """Which values are classes, with names from a list beside the folders, and which are ignored."""
    names_file = next((path for path in look.lists if Path(path).name.lower() in NAME_FILES), None)
    names = [line for line in read_lines(look.root / names_file) if line] if names_file else []
    values = sorted(pixels)
    if not names or len(set(names)) < len(names) or len(names) > _MOST_VALUES:
        classes = [value for value in values if value != _IGNORED][:_MOST_VALUES]
        draft.classes = {value: f"class {value}" for value in classes}
        draft.open.append("names of classes: no list such as classes.txt was found; give them their names")
        if 0 in classes:
            draft.open.append("whether 0 is a class or unlabelled: taken as a class; else move it to ignored")
    else:
        draft.found.append(f"{len(names)} names of classes in {names_file}")
        offset = _offset(draft, names, values)
        draft.classes = dict(enumerate(names, start=offset))
    if len(values) > _MOST_VALUES + 1:
        draft.open.append(
            f"what {len(values)} values mean: label maps hold at most {_MOST_VALUES} classes. Depth maps are "
            "another layout: name their folder depth and call describe again"
        )
        return
    ignored = [value for value in values if value not in draft.classes]
    draft.options = {**draft.options, "ignored": ignored or [_IGNORED]}
    asked = any("begin at 0 or at 1" in line for line in draft.open)
    others = [value for value in ignored if value != _IGNORED and not asked]
    if others:
        share = sum(pixels[value] for value in others) / max(1, sum(pixels.values()))
        draft.open.append(
            f"the meaning of {_listed(others)} ({share:.1%} of the pixels): no class name "
            "is left for them, so they are ignored"
        )


def _offset(draft: Draft, names: Sequence[str], values: Sequence[int]) -> int:
    """The value of the first name."""
    labelled = [value for value in values if value != _IGNORED]
    if labelled and 0 not in labelled and labelled[-1] <= len(names):
        return 1
    if labelled and labelled[-1] == len(names):
        draft.open.append(
            f"whether the values of classes begin at 0 or at 1: {len(names)} names and values 0 to "
            f"{len(names)}; taken as 0, so that {len(names)} is no class"
        )
    return 0
