"""COCO's twelve numbers for boxes and for masks, by pycocotools or, where installed, faster-coco-eval.

faster-coco-eval gives the same numbers in a sixth of the time: tests/pipelines/metrics/test_coco_ap.py
compares them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from pipelines.metrics.coco_results import Entry

Kind = Literal["bbox", "segm"]
Engine = Literal["pycocotools", "faster-coco-eval"]

NUMBERS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
"""In the order of pycocotools' `stats`: averages over IoU 0.5 to 0.95 but for AP50 and AP75, of at most 100
detections of an image but for AR_1 and AR_10."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoNumbers:
    """COCO scores of detections, from 0 to 1."""

    numbers: dict[str, float | None]
    """By the names of NUMBERS; None where no object of that size is annotated."""
    ap_by_class: list[float | None]
    """AP of each category, in the order of their ids; None where none is annotated."""
    precision: dict[str, list[float | None]] = field(default_factory=dict)
    """By IoU, `0.50` and `0.75`: the mean over categories of the precision at recalls 0, 0.01 .. 1, of
    objects of all sizes and 100 detections an image; None where no category has any."""


def best_engine() -> Engine:
    """The fastest installed engine."""
    return "faster-coco-eval" if find_spec("faster_coco_eval") else "pycocotools"


def coco_numbers(
    truth: Mapping[str, Any], results: Sequence[Entry], kind: Kind, engine: Engine | None = None
) -> CocoNumbers:
    """The figures of `results`, entries of a results file of this kind, against an instances file's content.

    Every image of the truth counts, also those without annotations or results. None is changed.
    """
    make_coco, make_evaluation = _tools(engine or best_engine())
    with contextlib.redirect_stdout(io.StringIO()):  # both print their tables
        annotated = _indexed(make_coco(), truth)
        evaluation = make_evaluation(annotated, _loaded(make_coco, annotated, results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = [float(value) for value in evaluation.stats[: len(NUMBERS)]]
    return CocoNumbers(
        numbers={name: _known(value) for name, value in zip(NUMBERS, found, strict=True)},
        ap_by_class=_ap_by_class(np.asarray(evaluation.eval["precision"])),
        precision=_precision(np.asarray(evaluation.eval["precision"])),
    )


def _tools(engine: Engine) -> tuple[Any, Any]:
    if engine == "faster-coco-eval":
        faster = import_module("faster_coco_eval")  # late: optional
        return faster.COCO, faster.COCOeval_faster
    from pycocotools.coco import COCO as PlainCoco  # late: loads matplotlib
    from pycocotools.cocoeval import COCOeval

    return PlainCoco, COCOeval


def _indexed(coco: Any, content: Mapping[str, Any]) -> Any:
    annotations = [dict(annotation) for annotation in content["annotations"]]
    coco.dataset = {**content, "annotations": annotations}
    coco.createIndex()
    return coco


def _loaded(make_coco: Any, annotated: Any, results: Sequence[Entry]) -> Any:
    """The results as the tool has them; pycocotools cannot load an empty list."""
    if results:
        return annotated.loadRes([dict(entry) for entry in results])
    return _indexed(make_coco(), {**annotated.dataset, "annotations": []})


def _ap_by_class(precision_TRKAM: Any) -> list[float | None]:
    """Mean precision over IoU thresholds and recalls, of all sizes and the most detections; -1 is unknown."""
    found: list[float | None] = []
    for number in range(precision_TRKAM.shape[2]):
        precision_TR = precision_TRKAM[:, :, number, 0, -1]
        counted = precision_TR[precision_TR > -1]
        found.append(float(counted.mean()) if counted.size else None)
    return found


def _precision(precision_TRKAM: Any) -> dict[str, list[float | None]]:
    """IoU thresholds run from 0.50 in steps of 0.05."""
    found: dict[str, list[float | None]] = {}
    for name, place in (("0.50", 0), ("0.75", 5)):
        precision_RK = precision_TRKAM[place, :, :, 0, -1]
        is_known = precision_RK > -1
        counts = is_known.sum(1)
        sums = np.where(is_known, precision_RK, 0.0).sum(1)
        found[name] = [float(s / c) if c else None for s, c in zip(sums, counts, strict=True)]
    return found


def _known(value: float) -> float | None:
    return None if value < 0 else value
