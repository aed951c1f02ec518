"""Results printed in the papers (paper_tables.yaml), and where a run's views differ from the papers'."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_TABLES = Path(__file__).parents[1] / "paper_tables.yaml"
_TABLES_OF_BACKBONES = (1, 5, 9)
"""They compare pretrainings and backbones with one head each."""

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
    note: str = ""
    """What of the head the paper does not print."""
    paper: str = ""
    """Short name of another paper than Lin et al. (NeurIPS 2022)."""

    def describe(self) -> str:
        """Where it stands and which backbone it is of.

        >>> paper_rows_of("ade20k", "fpn", "swinv2-b", "SUP-22K")[0].describe()
        'table 10, FPN, swinv2-b SUP-22K'
        """
        share = f", {100 * self.share:g} % of the records" if self.share != 1 else ""
        where = f"{self.paper} table {self.table}" if self.paper else f"table {self.table}"
        return f"{where}, {self.printed}, {self.model} {self.pretraining}{share}"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperDataset:
    """What a data set of the paper holds."""

    classes: int
    names_sha256: str
    records: int
    """Of the training split."""

    def has_classes(self, class_names: Sequence[str]) -> bool:
        """Whether these are its classes, in any order and spelling of case, blanks and punctuation."""
        plain = sorted(re.sub("[^a-z0-9]", "", name.lower()) for name in class_names)
        return hashlib.sha256("\n".join(plain).encode()).hexdigest() == self.names_sha256


@cache
def _tables() -> Mapping[str, Any]:
    import yaml  # late, so that doctor can say that it is missing

    found: dict[str, Any] = yaml.safe_load(_TABLES.read_text(encoding="utf-8"))
    return found


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Every row."""
    return tuple(PaperRow(**row) for row in _tables()["results"])


@cache
def paper_costs() -> tuple[PaperCost, ...]:
    """Every cost."""
    return tuple(PaperCost(**cost) for cost in _tables()["costs"])


def paper_rows_of(
    dataset: str, head: str, model: str, pretraining: str, share: float = 1.0
) -> list[PaperRow]:
    """The rows of exactly this head, backbone, pretraining and share of the records.

    The tables that compare heads come first; rows may differ, as table 2's BiFPN and table 5's best head.
    """
    fitting = [
        row
        for row in paper_rows()
        if (row.dataset, row.head, row.model, row.pretraining, row.share)
        == (dataset, head, model, pretraining, share)
    ]
    return sorted(fitting, key=lambda row: row.table in _TABLES_OF_BACKBONES)


def paper_head(head: str) -> tuple[str, str]:
    """The name under which the paper's rows hold a head, and how the head differs from theirs ("": not).

    >>> paper_head("pixeldec6")
    ('m2f-pd6-td9', '')
    >>> paper_head("htc-nosem-bifpn5")[0]
    'htc-bifpn5'
    """
    tables = _tables()
    found = {variant["head"]: (variant["of"], variant["differs"]) for variant in tables["variants"]}
    return found.get(head, (tables["aliases"].get(head, head), ""))


def paper_model(model: str) -> str:
    """The name under which the paper's rows hold a backbone: timm's without the tag of its weights.

    >>> paper_model("timm:vit_base_patch16_224.mae"), paper_model("swinv2-b")
    ('timm:vit_base_patch16_224', 'swinv2-b')
    """
    return model.partition(".")[0] if model.startswith("timm:") else model


def paper_dataset(name: str) -> PaperDataset | None:
    """The paper's data set of this name; None where it has none."""
    found = _tables()["datasets"].get(name)
    return PaperDataset(**found) if found else None


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
    "coco_pose": {
        "recipe": "pose",
        "scale_px": [256, 256],
        "scale": 0.5,
        "rotation_deg": 40.0,
        "flip": 0.5,
    },
    "in1k": {"recipe": "probe", "scale_px": [224, 224], "area_range": [0.08, 1.0], "flip": 0.5},
}
"""By data set: tables 11 to 13 of Lin et al. (NeurIPS 2022), of ADE20K the rest from mmseg
configs/_base_/datasets/ade20k.py; those of Mask2Former's heads are its own:
extract/views/mask2former_recipes.py."""
_MASK2FORMER_HEADS = ("m2f-", "pixeldec")


def is_of_a_paper(dataset: Mapping[str, Any]) -> bool:
    """Whether a store's data set, by its identity, is one that the papers report on: of its name, classes and
    half or more of its records, which made data in its layout is not.

    >>> [is_of_a_paper({"name": "ade20k", "num_classes": classes}) for classes in (150, 5)]
    [True, False]
    >>> is_of_a_paper({"name": "flowers", "num_classes": 150})
    False
    >>> [is_of_a_paper({"name": "ade20k", "records": {"count": count}}) for count in (20210, 200)]
    [True, False]
    >>> is_of_a_paper({"name": "ade20k", "class_names": ["wall"] * 150})
    False
    """
    papers = paper_dataset(dataset["name"])
    if papers is None or dataset.get("num_classes", papers.classes) != papers.classes:
        return False
    names, records = dataset.get("class_names"), dataset.get("records", {}).get("count", papers.records)
    return 2 * records >= papers.records and (names is None or papers.has_classes(names))


def view_differences(identity: Mapping[str, Any], head: str = "") -> Iterator[str]:
    """One phrase for each difference between a training store's views and those of the head's paper.

    >>> found = {"dataset": {"name": "ade20k"}, "views": {"recipe": "ade20k", "crop_px": 128, "count": 2}}
    >>> list(view_differences(found, "bifpn5"))
    ['crop_px 128 (paper: 512)', '2 fixed views per record (paper: new views every epoch)']
    >>> list(view_differences(found, "m2f-pd1-td3"))[0]
    'recipe ade20k (paper: ade20k-m2f)'

    None for data sets and heads that no paper reports on.
    """
    if not is_of_a_paper(identity["dataset"]) or not _is_head_of_a_paper(identity["dataset"]["name"], head):
        return
    views, papers_of = identity["views"], identity["dataset"]["name"]
    if head.startswith(_MASK2FORMER_HEADS):
        papers_of += "-m2f"
    for name, papers in PAPER_VIEWS.get(papers_of, {}).items():
        if name in views and views[name] != papers:
            yield f"{name} {views[name]} (paper: {papers})"
    if views["count"] is not None:
        views_text = "view" if views["count"] == 1 else "views"
        yield f"{views['count']} fixed {views_text} per record (paper: new views every epoch)"


def _is_head_of_a_paper(dataset: str, head: str) -> bool:
    if not head or head.startswith(_MASK2FORMER_HEADS):
        return True
    printed = paper_head(head)[0]
    return any((row.dataset, row.head) == (dataset, printed) for row in paper_rows())
