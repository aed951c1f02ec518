"""Results printed in the papers (paper_tables.yaml), and where a run's views differ from the papers'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_TABLES = Path(__file__).parents[1] / "paper_tables.yaml"

Scores = Mapping[str, Mapping[str, float]]
"""Views of the test records (single, ms+flip, 4x3) -> score, named as a task names it -> per cent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """A row of one of the paper's tables of results."""

    table: int
    printed: str
    """What the paper calls the head."""
    dataset: str
    head: str
    """What we call it."""
    model: str
    pretraining: str
    share: float = 1.0
    """Of the training records."""
    frozen: Scores
    fine_tuned: Scores = field(default_factory=dict)
    """With the backbone trained too; empty where the paper prints none."""

    def describe(self) -> str:
        """Where it stands and which backbone it is of.

        >>> paper_row("ade20k", "fpn", "swinv2-b").describe()
        'table 10, FPN, swinv2-b SUP-22K'
        """
        share = f", {100 * self.share:g} % of the records" if self.share != 1 else ""
        return f"table {self.table}, {self.printed}, {self.model} {self.pretraining}{share}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperCost:
    """What the paper's tables 7 and 8 print for a training iteration."""

    dataset: str
    model: str
    batch_size: int
    """Samples of an iteration."""
    frozen: Mapping[str, float]
    """`gb` of a GPU's memory and `seconds`, with the larger head over a frozen backbone."""
    fine_tuned: Mapping[str, float] = field(default_factory=dict)
    """The same with the plain head and a trained backbone; empty where it does not fit the GPU."""


@cache
def _tables() -> Mapping[str, list[dict[str, Any]]]:
    import yaml  # late, so that doctor can say that it is missing

    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(_TABLES.read_text(encoding="utf-8"))
    return found


def paper_rows() -> tuple[PaperRow, ...]:
    """Every row."""
    return tuple(PaperRow(**row) for row in _tables()["results"])


def paper_costs() -> tuple[PaperCost, ...]:
    """Every cost."""
    return tuple(PaperCost(**cost) for cost in _tables()["costs"])


def paper_row(dataset: str, head: str, model: str, share: float = 1.0) -> PaperRow | None:
    """The row of the same data set, head and share of the records; of this backbone where there is one.

    None where the paper prints no such head; a row of another backbone says so in its `model`.
    """
    fitting = [row for row in paper_rows() if (row.dataset, row.head, row.share) == (dataset, head, share)]
    same = [row for row in fitting if row.model == model]
    return next(iter(same + fitting), None)


def paper_cost(dataset: str, model: str) -> PaperCost | None:
    """What an iteration cost the paper; None for other data sets and backbones."""
    return next((cost for cost in paper_costs() if (cost.dataset, cost.model) == (dataset, model)), None)


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
    """One phrase for each difference between a training store's views and those of the head's paper.

    >>> found = {"dataset": {"name": "ade20k"}, "views": {"recipe": "ade20k", "crop_px": 128, "count": 2}}
    >>> list(view_differences(found, "bifpn5"))
    ['crop_px 128 (paper: 512)', '2 fixed views per record (paper: new views every epoch)']
    >>> list(view_differences(found, "m2f-pd1-td3"))[0]
    'recipe ade20k (paper: ade20k-m2f)'
    """
    views, papers_of = identity["views"], identity["dataset"]["name"]
    if head.startswith(_MASK2FORMER_HEADS):
        papers_of += "-m2f"
    for name, papers in PAPER_VIEWS.get(papers_of, {}).items():
        if name in views and views[name] != papers:
            yield f"{name} {views[name]} (paper: {papers})"
    if views["count"] is not None:
        views_text = "view" if views["count"] == 1 else "views"
        yield f"{views['count']} fixed {views_text} per record (paper: new views every epoch)"
