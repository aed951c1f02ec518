"""Codec error of a store by level and channel, beside the score of runs over the bytes that they read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from pipelines.analyses.sample_rows import sample_rows
from pipelines.analyses.written import Analysis, store_identity
from pipelines.catalog.data_folder import recorded_data
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.machine.devices import choose_device
from pipelines.pictures.drawable_text import drawable, shortened
from pipelines.pictures.run_colours import DASHES, colour_of, marker_of
from pipelines.reporting.run_summary import RunFigures, read_figures, run_folders
from pipelines.tasks import task_info
from pipelines.units import percent
from stores.checks.level_figures import LevelFigures, level_figures
from stores.codecs.contract import channel_errors
from stores.errors import IdentityError, StoreError
from stores.reading.committed_store import read_plan
from stores.reading.reader import Store, open_store
from stores.remote.opening import open_folder
from stores.remote.store_url import store_path

logger = logging.getLogger(__name__)
USUAL_ROWS = 32
WORST_CHANNELS = 5
_MOST_VALUES = 1 << 24
"""Of a level that are compared: 16 M."""
Errors = npt.NDArray[np.float64]


def codec(config: AnalyseConfig) -> Analysis:
    """Errors that extraction recorded in receipts, by level; where pixels and weights are at hand also those
    of every channel, of rows that run through the backbone again.

    Raises UsageError for several stores or runs that were not evaluated.
    """
    if len(config.store) != 1:
        raise UsageError(f"--kind codec: expected one --store, found {len(config.store)}")
    path = store_path(config.store[0])
    recorded = level_figures(path)
    with open_store(path) as store:
        rows = sample_rows(store, config.rows or USUAL_ROWS).rows
        print(f"cost: {len(rows)} rows run through the backbone again, where pixels and weights are at hand")
        by_channel, why_not = _measured(config, store, rows)
        identity = store_identity(store)
    points = [_point(figures) for figures in _evaluated(config)]
    levels = {
        level: {
            "recorded": asdict(recorded[level]) if level in recorded else None,
            "channels": by_channel[level].tolist() if level in by_channel else None,
            "worst_channels": _worst(by_channel[level]) if level in by_channel else None,
        }
        for level in identity_levels(recorded, by_channel)
    }
    return Analysis(
        name=path.name,
        content={
            "kind": "codec",
            "of": identity,
            "error": "root mean square over the standard deviation of a channel, outliers left out",
            "levels": levels,
            "rows": len(rows) if by_channel else 0,
            "channels_not_measured": why_not,
            "runs": points,
            "dtype": "float64",
        },
        table=[
            {"level": level, "channel": channel, "error": f"{error:.6f}"}
            for level, errors in by_channel.items()
            for channel, error in enumerate(errors.tolist())
        ]
        or [
            {"level": level, "median": of.median, "worst": of.worst, "channel": of.worst_channel}
            for level, of in recorded.items()
        ],
        figure=_draw(identity["codec"], recorded, by_channel, points),
        sentence=f"codec {identity['codec']}: "
        + ", ".join(_line(level, found) for level, found in levels.items()),
    )


def identity_levels(recorded: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Levels of either, in order."""
    return list(dict.fromkeys([*recorded, *measured]))


def _measured(
    config: AnalyseConfig, store: Store, rows: Sequence[int]
) -> tuple[dict[str, Errors], str | None]:
    """Errors of every channel by level, and why there are none."""
    # Late: reading receipts needs no backbone.
    from pipelines.live.backbone import live_features, load_same_backbone
    from pipelines.live.recompute_levels import open_pixels

    device = choose_device(config.device)
    try:
        backbone = load_same_backbone(
            store.identity["backbone"], store.levels, config.weights[0], device, precision=config.precision
        )
        data = config.data or recorded_data(store.path)
        source = open_pixels(store, "stored" if store.plan.pixels else "source", data, 1)
    except (StoreError, ValueError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        print(f"channels are not measured, only what receipts recorded: {reason}")
        return {}, reason
    live: dict[str, list[Any]] = {level: [] for level in store.levels}
    stored: dict[str, list[Any]] = {level: [] for level in store.levels}
    try:
        for row in rows:
            hw = (int(store.valid_hw[row][0]), int(store.valid_hw[row][1]))
            found = live_features(backbone, source.read(store, [row]), [hw])
            decoded = store.read_features([row], store.levels)
            for level in store.levels:
                # Both as (cells, channels); a clip has its frames after the batch or after the channels.
                x = torch.movedim(found[level], 1, -1).reshape(-1, found[level].shape[1]).cpu().numpy()
                live[level].append(_thinned(x, len(rows)))
                y = np.moveaxis(decoded[level], -3, -1)
                stored[level].append(_thinned(y.reshape(-1, y.shape[-1]), len(rows)))
    except IdentityError as error:
        print(f"channels are not measured, only what receipts recorded: {error}")
        return {}, str(error)
    finally:
        source.close()
    return {
        level: channel_errors(np.concatenate(live[level]), np.concatenate(stored[level]))
        for level in store.levels
    }, None


def _thinned(x_LC: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """Every so many cells, the same of the live and of the stored map."""
    return x_LC[:: max(1, x_LC.size * rows // _MOST_VALUES)]


def _worst(errors: Errors) -> list[dict[str, float]]:
    order = np.argsort(-errors, kind="stable")[:WORST_CHANNELS]
    return [{"channel": int(channel), "error": float(errors[channel])} for channel in order]


def _line(level: str, found: Mapping[str, Any]) -> str:
    if found["channels"] is not None:
        worst, median = found["worst_channels"][0], float(np.median(found["channels"]))
        return f"{level} {percent(median)} % (channel {worst['channel']} {percent(worst['error'])} %)"
    return f"{level} {percent(found['recorded']['median'])} %"


def _evaluated(config: AnalyseConfig) -> list[RunFigures]:
    return [read_figures(folder) for folder in run_folders([Path(run) for run in config.runs])]


def _point(figures: RunFigures) -> dict[str, Any]:
    """First score of a run and the bytes of a row that its head reads. Raises UsageError without either."""
    if not figures.scores:
        raise UsageError(f"{figures.folder} was not evaluated: run evaluate first")
    views, scores = next(iter(figures.scores.items()))
    name, value = next(iter(scores.items()))
    score = task_info(figures.record.task).score(name)
    return {
        "run": str(figures.folder),
        "head": figures.record.head,
        "codec": figures.record.codec,
        "score": f"{name} ({views}), {score.unit}",
        "value": score.factor * value,
        "bytes_a_row": bytes_a_row(figures),
    }


def bytes_a_row(figures: RunFigures) -> float:
    """Stored bytes of the levels that a run's head reads, of one row. Raises UsageError where the store is
    not at hand."""
    record = figures.record
    if not record.stores:
        raise UsageError(f"{figures.folder} was trained online: it read no store")
    path = Path(record.stores[0].path)
    found, plan = level_figures(path), read_plan(open_folder(path), None)
    rows = sum(b.rows for b in plan.bins)
    total = 0.0
    for name in record.levels:
        level = plan.pyramid[name]
        values = sum(
            b.rows * (plan.frames or 1) * level.channels * level.cells(b.height_px) * level.cells(b.width_px)
            for b in plan.bins
        )
        total += values * found[name].bits_per_value / 8
    return total / rows


def _draw(
    name: str,
    recorded: Mapping[str, LevelFigures],
    by_channel: Mapping[str, Errors],
    points: Sequence[Mapping[str, Any]],
) -> Figure:
    panels = 2 if points else 1
    figure = Figure(figsize=(5.6 * panels, 3.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    levels = identity_levels(recorded, by_channel)
    for place, level in enumerate(levels):
        if level in by_channel:
            errors = np.sort(100 * by_channel[level])
            shares = np.linspace(0, 100, len(errors))
            dash = DASHES[place % len(DASHES)]
            axes[0].plot(shares, errors, color=colour_of(place), linestyle=dash, label=level)
    if by_channel:
        axes[0].set(xlabel="channels, % (sorted by error)", ylabel=f"error of {name}, % of a deviation")
    else:
        axes[0].bar(levels, [100 * (recorded[level].median or 0) for level in levels], color=colour_of(0))
        axes[0].set(xlabel="level", ylabel=f"median error of {name}, % of a deviation")
    axes[0].set_ylim(bottom=0)
    axes[0].grid(alpha=0.3)
    if by_channel:
        figure.legend(loc="outside upper left", ncols=len(levels), frameon=False)
    if points:
        scale, unit = (1e6, "MB") if max(point["bytes_a_row"] for point in points) >= 1e6 else (1e3, "kB")
        for place, point in enumerate(points):
            x, y = point["bytes_a_row"] / scale, point["value"]
            axes[1].plot([x], [y], marker_of(place), color=colour_of(place))
            text = drawable(shortened(f"{point['head']} {point['codec']}", 24))
            axes[1].annotate(text, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
        axes[1].set(xlabel=f"bytes a row that the head reads, {unit}", ylabel=points[0]["score"])
        axes[1].margins(0.25)
        axes[1].grid(alpha=0.3)
    return figure
