"""Layout `masks`: images and label maps in folders of equal names, or in pairs of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from extract.datasets.layouts.label_maps import LabelMaps, Labels
from extract.datasets.own.description import Description
from extract.datasets.own.image_pairs import MASKS, own_pairs
from extract.sources.byte_sources import BAD_TARGET, SourceError, decode_label_values
from extract.views.view import Hw

IGNORE = 255


def open_masks(description: Description, data: Path, split: str, subset: str | None) -> LabelMaps:
    """A split of own segmentation data.

    Raises DatasetLayoutError where no image has its mask; says what was looked for and what was found.
    """
    return LabelMaps(
        description.name,
        split,
        split in description.training,
        description.class_names,
        own_pairs(description, data, split, MASKS),
        subset,
        partial(decode_mask, classes=description.classes, ignored=description.ignored),
        has_truth=description.has_truth(split),
    )


def decode_mask(
    annotation: bytes, original_hw: Hw, *, classes: Mapping[int, str], ignored: Sequence[int]
) -> Labels:
    """The label map in a mask: uint8 (H, W), labels in the order of `classes`, 255 = ignore.

    Args:
        annotation: a PNG in gray of 1 to 16 bits, or with a palette.
        original_hw: height and width of its image.
        classes: by value in the file.
        ignored: values that are no class.

    Raises SourceError for another file, another size, or a value that is neither.

    >>> import io; from PIL import Image
    >>> file = io.BytesIO(); Image.fromarray(np.array([[7, 8, 255]], np.uint8)).save(file, "PNG")
    >>> decode_mask(file.getvalue(), (1, 3), classes={7: "road", 8: "sky"}, ignored=[255]).tolist()
    [[0, 1, 255]]
    """
    try:
        values = decode_label_values(annotation)
    except SourceError as error:
        raise SourceError(BAD_TARGET, f"mask: {error.reason}") from None
    if values.shape != original_hw:
        (h, w), (image_h, image_w) = values.shape, original_hw
        raise SourceError(BAD_TARGET, f"mask of {w}x{h} pixels, its image has {image_w}x{image_h}")
    label_of = np.full(1 << 16, IGNORE, np.uint8)
    known = np.zeros(1 << 16, np.bool_)
    for label, value in enumerate(classes):
        label_of[value], known[value] = label, True
    known[[value for value in ignored if value < 1 << 16]] = True
    if not known[values].all():
        strange = int(values[~known[values]][0])
        raise SourceError(
            BAD_TARGET,
            f"mask holds {strange}, which is none of the {len(classes)} classes ({_ranges(list(classes))}) "
            f"and not ignored ({_ranges(ignored)})",
        )
    return label_of[values]


def _ranges(values: Sequence[int]) -> str:
    """
    >>> _ranges([0, 1, 2, 5, 255]), _ranges([])
    ('0 to 2, 5, 255', 'none')
    """
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join(" to ".join(map(str, part)) for part in parts) or "none"
