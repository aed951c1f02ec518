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
    "coco": {
        "recipe": "coco",
        "scale_px": [1024, 1024],
        "ratio_range": [0.1, 2.0],
        "crop_px": 1024,
        "flip": 0.5,
    },
}
"""By data set: tables 11 and 12 of Lin et al. (NeurIPS 2022), of ADE20K the rest from mmseg
configs/_base_/datasets/ade20k.py."""


def view_differences(identity: Mapping[str, Any]) -> Iterator[str]:
    """One phrase for each thing in which the views of a training store are not the papers'.

    >>> list(view_differences({"dataset": {"name": "ade20k"}, "views": {"crop_px": 128, "count": 2}}))
    ['crop_px 128 (512)', '2 fixed views of each record (new ones in every epoch)']
    """
    views = identity["views"]
    for field, papers in PAPER_VIEWS.get(identity["dataset"]["name"], {}).items():
        if field in views and views[field] != papers:
            yield f"{field} {views[field]} ({papers})"
    if views["count"] is not None:
        yield f"{views['count']} fixed views of each record (new ones in every epoch)"
