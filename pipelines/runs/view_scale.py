"""Whether test views show records at the scale a head was trained at; read from identities alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_DETECTION_CROP_PX, _DETECTION_SHORT_PX = 1024, 800
"""The papers' jittered crops go with tests of short side 800, see extract/views/detection_recipes.py."""
_SIZE_OF_RATIO_1 = {"single": 0, "ms-flip": 1}
"""Which of a detection recipe's sizes is that of the single-scale test."""
_USUAL_INTERPOLATION = "bilinear"
"""Of views whose identity names none, see extract/views/view.py."""

Difference = tuple[str, Any, Any]
"""A field of the views, what the head was trained at, and what the test views have."""


def scale_differences(
    trained: Mapping[str, Any], test: Mapping[str, Any], short_side: int | None = None
) -> Iterator[Difference]:
    """The fields in which test views are not of the training scale, or resized in another way.

    Fields that either identity lacks, as in views of an installed package, are not compared.

    >>> list(scale_differences({"scale_px": [2560, 640]}, {"scale_px": [2048, 512]}))
    [('views.scale_px', [2560, 640], [2048, 512])]
    >>> list(scale_differences({"scale_px": [2560, 640]}, {"scale_px": [2048, 512]}, short_side=512))
    []
    >>> coco = {"recipe": "single", "sizes_px": [[1333, 800]]}
    >>> list(scale_differences({"scale_px": [1024, 1024]}, coco))
    []
    >>> list(scale_differences({"scale_px": [512, 512]}, coco))
    [('views.sizes_px (short side)', 512, 800)]
    >>> list(scale_differences({"interpolation": "bicubic"}, {}))
    [('views.interpolation', 'bicubic', 'bilinear')]

    Args:
        trained: the `views` of the training rows' identity.
        test: those of the test rows.
        short_side: in pixels, asked for instead of the training scale's; None: the training scale's.
    """
    scale = trained.get("scale_px")
    if scale is not None and "scale_px" in test:
        expected = list(scale) if short_side is None else [scale[0] * short_side // scale[1], short_side]
        if list(test["scale_px"]) != expected:
            yield "views.scale_px", expected, list(test["scale_px"])
    elif scale is not None and test.get("recipe") in _SIZE_OF_RATIO_1 and "sizes_px" in test:
        wanted = _detection_short_px(scale) if short_side is None else short_side
        found = short_side_of(test)
        if found != wanted:
            yield "views.sizes_px (short side)", wanted, found
    if "frames" in trained and "frames" in test and trained.get("crop_px") != test.get("crop_px"):
        yield "views.crop_px", trained.get("crop_px"), test.get("crop_px")
    for name in ("frames", "stride"):
        if name in trained and name in test and trained[name] != test[name]:
            yield f"views.{name}", trained[name], test[name]
    resized = [views.get("interpolation", _USUAL_INTERPOLATION) for views in (trained, test)]
    if resized[0] != resized[1]:
        yield "views.interpolation", *resized


def is_sized_by_crop(views: Mapping[str, Any]) -> bool:
    """Whether test views that go with these are crops, sized by --crop-size: of photographs that are
    classified, and of videos. Others are whole images, sized by --short-side."""
    return "frames" in views or views.get("kind") == "crop"


def is_of_scale(trained: Mapping[str, Any], test: Mapping[str, Any], short_side: int | None = None) -> bool:
    """Whether test views are of the training scale; arguments as of `scale_differences`."""
    return not any(scale_differences(trained, test, short_side))


def short_side_of(test: Mapping[str, Any]) -> int | None:
    """The short side of test views at ratio 1 in pixels; None where their identity does not name it.

    >>> short_side_of({"scale_px": [2048, 512]})
    512
    >>> short_side_of({"recipe": "single", "sizes_px": [[1333, 800]]})
    800
    """
    if "scale_px" in test:
        return int(test["scale_px"][1])
    if test.get("recipe") in _SIZE_OF_RATIO_1 and "sizes_px" in test:
        return int(test["sizes_px"][_SIZE_OF_RATIO_1[test["recipe"]]][1])
    return None


def _detection_short_px(scale: Any) -> int:
    papers = list(scale) == [_DETECTION_CROP_PX, _DETECTION_CROP_PX]
    return _DETECTION_SHORT_PX if papers else int(scale[1])
