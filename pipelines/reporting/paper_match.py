"""The paper's row beside a run, or the reason why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.reporting.paper_results import (
    PaperCost,
    PaperDataset,
    PaperRow,
    paper_cost,
    paper_dataset,
    paper_head,
    paper_model,
    paper_rows,
    paper_rows_of,
)
from pipelines.reporting.pretraining import RunWeights
from pipelines.runs.run_folder import RunRecord

WINDOW_7 = "paper: 224 px, window 7 weights, not public"
_ANOTHER_HEAD = frozenset(
    {"neck", "neck_depth", "bifpn_layers", "residual_blocks", "pixel_layers", "decoder_layers"}
    | {"semantic", "span", "blocks"}
)
"""Settings that make another head of a preset."""
_ANY_SIZE = frozenset({"window_size", "img_size"})
"""Constructor arguments that leave a backbone's weights as they are."""
_PAPER_ARGS = {"swinv2-g": {"depths": [2, 2, 42, 4]}}
"""Constructor arguments of the paper's backbones over timm's."""
_WINDOW = re.compile(r"window(\d+)_(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperMatch:
    """What the paper prints for a run."""

    rows: tuple[PaperRow, ...] = ()
    """The first is shown; others hold other numbers for the same head."""
    notes: tuple[str, ...] = ()
    """How the run differs from them, and what the paper does not print."""
    reason: str = ""
    """Why there is no row."""

    @property
    def row(self) -> PaperRow | None:
        return self.rows[0] if self.rows else None


def match_paper(record: RunRecord, share: float, weights: RunWeights) -> PaperMatch:
    """The paper's rows of a run's classes, backbone, pretraining, head and share of the records."""
    dataset, model = paper_dataset(record.dataset), paper_model(record.model)
    head, differs = paper_head(record.head)
    rows_of_head = [row for row in paper_rows() if (row.dataset, row.head) == (record.dataset, head)]
    reason = (
        _other_classes(record, dataset)
        or _other_backbone(record)
        or _other_head(record, head, has_rows=bool(rows_of_head))
        or _unknown_weights(record, weights)
    )
    if reason:
        return PaperMatch(reason=reason)
    assert dataset is not None and weights.pretraining is not None
    rows = paper_rows_of(record.dataset, head, model, weights.pretraining, share)
    if not rows:
        part = f", {100 * share:g} % of the records" if share != 1 else ""
        return PaperMatch(reason=f"not printed for {head}, {model} {weights.pretraining}{part}")
    shown = [rows[0], *(row for row in rows[1:] if _shown(row) != _shown(rows[0]))]
    notes = (
        differs,
        rows[0].note,
        "" if rows[0].paper else _weights_note(record),
        _settings_note(record),
        _records_note(record, dataset),
    )
    return PaperMatch(rows=tuple(shown), notes=tuple(filter(None, notes)))


def _shown(row: PaperRow) -> Any:
    return row.frozen or row.fine_tuned


def match_cost(record: RunRecord) -> PaperCost | None:
    """What an iteration cost the paper with this data set and backbone; None for other classes."""
    if _other_classes(record, paper_dataset(record.dataset)) or _other_backbone(record):
        return None
    return paper_cost(record.dataset, record.model)


def _other_classes(record: RunRecord, dataset: PaperDataset | None) -> str:
    if dataset is None or record.package("dataset") is not None:
        return f"no data set of the paper: {record.dataset}"
    if len(record.class_names) != dataset.classes:
        return f"{len(record.class_names)} classes (paper: {dataset.classes})"
    if not dataset.has_classes(record.class_names):
        return f"{dataset.classes} classes of other names than the paper's {record.dataset}"
    return ""


def _other_backbone(record: RunRecord) -> str:
    backbone = record.identity["backbone"]
    known = {row.model for row in paper_rows() if row.dataset == record.dataset}
    if paper_model(record.model) not in known or backbone.get("package") is not None:
        return f"no backbone of the paper: {record.model}"
    args: Mapping[str, Any] = backbone.get("args", {})
    expected = _PAPER_ARGS.get(record.model, {})
    own = {
        name: value for name, value in args.items() if name not in _ANY_SIZE and expected.get(name) != value
    }
    return f"{record.model} with {_settings(own)}" if own else ""


def _other_head(record: RunRecord, head: str, *, has_rows: bool) -> str:
    if record.head_package is not None or not has_rows:
        return f"no head of the paper: {record.head}"
    changed = {name: value for name, value in record.full_settings.items() if name in _ANOTHER_HEAD}
    return f"{record.head} with {_settings(changed)}" if changed else ""


def _unknown_weights(record: RunRecord, weights: RunWeights) -> str:
    if weights.pretraining is not None:
        return ""
    if weights.known:
        return f"no pretraining of the paper: weights {weights.name}"
    return (
        f"pretraining of weights {weights.name} unknown; pass --pretraining {record.weights_sha256[:8]}=NAME"
    )


def _weights_note(record: RunRecord) -> str:
    if record.model == "swinv2-g":
        return "paper: ext22K weights, not public"
    backbone = record.identity["backbone"]
    window = (backbone.get("pretrained_windows") or [[None]])[0][0]
    if window == 7:
        return ""
    size = _WINDOW.search(str(backbone.get("timm_id", "")))
    is_timms = size is not None and window in (None, int(size[1]))
    ours = f"; ours: {size[2]} px, window {size[1]}" if size and is_timms else ""
    return WINDOW_7 + ours


def _settings_note(record: RunRecord) -> str:
    """The head's own settings; SwinV2-G's drop path is the paper's."""
    own = {
        name: value
        for name, value in record.own_settings.items()
        if not (name == "drop_path" and record.model == "swinv2-g")
    }
    return f"head settings of our own: {_settings(own)}" if own else ""


def _records_note(record: RunRecord, dataset: PaperDataset) -> str:
    """Of a data set of half or less of the paper's records, such as a made one in its layout."""
    count = int(record.identity["dataset"]["records"]["count"])
    return f"of {count:,} records (paper: {dataset.records:,})" if 2 * count < dataset.records else ""


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
