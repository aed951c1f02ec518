"""Where a run's views differ from those of the papers it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PAPER_VIEWS: dict[str, dict[str, Any]] = {
    "ade20k": {
        "recipe": "ade20k",
        "scale_px": [2048, 512],
        "ratio_range": [0.5, 2.0],
        "crop_px": 512,
        "cat_max_ratio": 0.75,
        "flip": 0.5,
    },
    "ade20k-m2f": {"recipe": "ade20k-m2f", "scale_px": [2048, 512], "crop_px": 512, "flip": 0.5},
    "coco": {
        "recipe": "coco",
        "scale_px": [1024, 1024],
        "ratio_range": [0.1, 2.0],
        "crop_px": 1024,
        "flip": 0.5,
    },
    "k400": {"recipe": "k400", "scale_px": [224, 224], "frames": 16, "flip": 0.5},
}
"""By data set: tables 11 to 13 of Lin et al. (NeurIPS 2022), of ADE20K the rest from mmseg
configs/_base_/datasets/ade20k.py; those of Mask2Former's heads are its own:
extract/views/mask2former_recipes.py."""
_MASK2FORMER_HEADS = ("m2f-", "pixeldec")


def view_differences(identity: Mapping[str, Any], head: str = "") -> Iterator[str]:
    """One phrase for each thing in which the views of a training store are not the papers' for the head.

    >>> found = {"dataset": {"name": "ade20k"}, "views": {"recipe": "ade20k", "crop_px": 128, "count": 2}}
    >>> list(view_differences(found, "bifpn5"))
    ['crop_px 128 (512)', '2 fixed views of each record (new ones in every epoch)']
    >>> list(view_differences(found, "m2f-pd1-td3"))[0]
    'recipe ade20k (ade20k-m2f)'
    """
    views, papers_of = identity["views"], identity["dataset"]["name"]
    if head.startswith(_MASK2FORMER_HEADS):
        papers_of += "-m2f"
    for field, papers in PAPER_VIEWS.get(papers_of, {}).items():
        if field in views and views[field] != papers:
            yield f"{field} {views[field]} ({papers})"
    if views["count"] is not None:
        yield f"{views['count']} fixed views of each record (new ones in every epoch)"
