"""`probe`: classifies stored features by nearest neighbours or logistic regression, without a training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.accuracy.class_figures import ClassFigures
from pipelines.accuracy.named_records import TOP, Named, name_record
from pipelines.catalog.probe_stores import find_probe_stores
from pipelines.config import ProbeConfig
from pipelines.errors import UsageError
from pipelines.json_output import write_json
from pipelines.machine.devices import choose_device
from pipelines.probes.logistic import GRIDS, choose_c, chosen_engine, fit
from pipelines.probes.neighbours import neighbour_votes
from pipelines.probes.probe_rows import ProbeRows, chosen_levels, read_rows
from pipelines.runs.same_source import check_same_source
from pipelines.runs.view_scale import scale_differences
from pipelines.units import percent
from stores.errors import IdentityError
from stores.reading.reader import Store, open_store

logger = logging.getLogger(__name__)

USUAL_K = 20
"""Whose result stands for k-NN: DINO's best on ImageNet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """What a method found."""

    figures: ClassFigures
    label: str
    """How it was made, for people."""
    details: Mapping[str, Any]


def run(config: ProbeConfig) -> dict[str, Any]:
    """Measures a probe on a test store, writes its tables and prints its scores.

    Raises UsageError where no store fits or one has no labels or no such feature, IdentityError where the
    stores are not of one data set, backbone and scale.
    """
    device, began = choose_device(config.device), time.perf_counter()
    train_path, test_path = find_probe_stores(config)
    with open_store(train_path) as train_store, open_store(test_path) as test_store:
        _check_pair(train_store, test_store)
        levels = chosen_levels(train_store.pyramid, config.feature, config.blocks, str(train_path))
        lacking = [level for level in levels if level not in test_store.levels]
        if lacking:
            raise UsageError(
                f"{test_path} lacks {', '.join(lacking)}; it holds {', '.join(test_store.levels)}"
            )
        logger.info("%s: reading %s of %s and %s", config.method, ",".join(levels), train_path, test_path)
        train = read_rows(train_store, levels, "label", config.subset)
        test = read_rows(test_store, levels, _truth_of(test_store))
        class_names = tuple(train_store.identity["dataset"]["class_names"])
        views = _views(train_store)
    method = _by_neighbours if config.method == "knn" else _by_regression
    result = method(config, train, test, len(class_names), device)
    folder = Path(config.out or Path("runs") / f"{train_path.name}-{config.method}")
    summary = {
        "method": config.method,
        "store": str(train_path),
        "val_store": str(test_path),
        "levels": list(levels),
        "training_rows": len(train.keys),
        "training_records": len(set(train.keys)),
        "subset": config.subset,
        "training_views": views,
        **result.details,
        **result.figures.summary(),
        "scores": dict(result.figures.scores()),
        "class_names": list(class_names),
        "seconds": round(time.perf_counter() - began, 3),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "probe.json", summary)
    result.figures.write(folder, "", class_names)
    print(f"{result.figures.line()} by {result.label} of {len(set(train.keys))} training records; {folder}")
    return {**summary, "out": str(folder)}


def _check_pair(train: Store, test: Store) -> None:
    check_same_source(train.identity, test.identity, str(test.path))
    for field, trained, found in scale_differences(train.identity["views"], test.identity["views"]):
        raise IdentityError(
            field, trained, found, f"{test.path} is not of the scale of {train.path}; extract both alike"
        )


def _truth_of(store: Store) -> str:
    return "original_label" if "original_label" in store.targets else "label"


def _views(store: Store) -> str:
    """The training views in words; logs where they are not those of tests."""
    recipe, count = str(store.identity["views"]["recipe"]), store.view_count
    if recipe != "centre":
        logger.info(
            "%s holds %d views of each record (%s), all of which are used; --views single of the training "
            "split gives those of tests, as papers use",
            *(store.path, count, recipe),
        )
    return f"{count} x {recipe}"


def _by_neighbours(
    config: ProbeConfig, train: ProbeRows, test: ProbeRows, num_classes: int, device: torch.device
) -> _Result:
    counts = sorted({k for k in config.k if k <= len(train.keys)})
    if not counts:
        raise UsageError(
            f"--k {','.join(map(str, config.k))}: more neighbours than the {len(train.keys)} training rows"
        )
    votes = neighbour_votes(
        torch.from_numpy(train.x_NC).to(device),
        torch.from_numpy(train.labels_N).to(device),
        torch.from_numpy(test.x_NC).to(device),
        counts=counts,
        num_classes=num_classes,
        temperature=config.temperature,
    )
    by_k = {k: _figures(test, votes[k].cpu(), num_classes, min(TOP, k)) for k in counts}
    best = min(counts, key=lambda k: (abs(k - USUAL_K), k))
    for k, figures in by_k.items():
        scores = " ".join(f"{name} {percent(value)}" for name, value in figures.scores().items())
        print(f"  k {k:<6} {scores}")
    return _Result(
        figures=by_k[best],
        label=f"{best} nearest neighbours",
        details={
            "k": best,
            "temperature": config.temperature,
            "scores_by_k": {str(k): dict(figures.scores()) for k, figures in by_k.items()},
        },
    )


def _by_regression(
    config: ProbeConfig, train: ProbeRows, test: ProbeRows, num_classes: int, device: torch.device
) -> _Result:
    engine = chosen_engine(train.values) if config.engine == "auto" else config.engine
    grid = GRIDS[config.c_grid] if config.c is None else (config.c,)
    held: dict[float, float] = {}
    try:
        c = grid[0]
        if len(grid) > 1:
            c, held = choose_c(train.x_NC, train.labels_N, grid, engine, device)
        fitted = fit(train.x_NC, train.labels_N, c, engine, device)
    except ValueError as error:
        raise UsageError(f"{error}: {config.store or 'the training store'} or its --subset") from error
    probabilities = torch.from_numpy(fitted.probabilities(test.x_NC, num_classes)).float()
    return _Result(
        figures=_figures(test, probabilities, num_classes, TOP),
        label=f"logistic regression (C {c:.3g}, {engine})",
        details={
            "c": c,
            "engine": engine,
            "iterations": fitted.iterations,
            "top1_of_the_held_out_tenth": {f"{each:.6g}": score for each, score in held.items()},
        },
    )


def _figures(test: ProbeRows, probabilities_NK: Tensor, num_classes: int, most: int) -> ClassFigures:
    """Figures of the mean over the views of each record.

    Args: most: classes that count as named; of k neighbours no more than k have a vote.
    """
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(test.keys):
        rows_of.setdefault(key, []).append(row)
    named = []
    for key, rows in rows_of.items():
        found = name_record(key, int(test.labels_N[rows[0]]), probabilities_NK[rows].mean(0))
        named.append(_with_votes(found, most))
    return ClassFigures(named=tuple(named), num_classes=num_classes, views="single")


def _with_votes(found: Named, most: int) -> Named:
    """Without classes that have no vote: their order means nothing."""
    kept: Sequence[int] = [i for i, share in enumerate(found.probabilities) if share > 0 and i < most] or [0]
    return Named(
        key=found.key,
        label=found.label,
        best=tuple(found.best[i] for i in kept),
        probabilities=tuple(found.probabilities[i] for i in kept),
    )
