"""Files and sentence of a CKA: matrices as JSON, CSV and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.analyses.pictures.heat_maps import HeatMap, draw_heat_maps
from pipelines.analyses.written import Analysis
from pipelines.config.analyses import AnalyseConfig


def cka_analysis(
    config: AnalyseConfig,
    name: str,
    maps: Sequence[HeatMap],
    *,
    identity: Mapping[str, Any],
    rows: int,
    batch_rows: int,
    wanted_rows: int,
) -> Analysis:
    """The analysis of some matrices over the same rows; prints where it is one of minibatches."""
    if batch_rows < wanted_rows:
        print(f"Gram matrices of batches of {batch_rows} rows, HSIC summed over {rows // batch_rows}")
    table = [
        {"matrix": each.title, "row": row, "column": column, "cka": "" if value is None else f"{value:.6f}"}
        for each in maps
        for row, values in zip(each.rows, each.values, strict=True)
        for column, value in zip(each.columns, values, strict=True)
    ]
    content = {
        "kind": "cka",
        **identity,
        "rows": rows,
        "estimator": config.estimator,
        "batch_rows": batch_rows,
        "pool": config.pool,
        "dtype": "float64 Gram matrices of float32 features, centred first",
        "null": "of features that do not vary over the rows, or whose HSIC with themselves is not positive",
        "matrices": [
            {
                "title": each.title,
                "rows": list(each.rows),
                "columns": list(each.columns),
                "cka": [list(values) for values in each.values],
            }
            for each in maps
        ],
    }
    return Analysis(
        name=name,
        content=content,
        table=table,
        figure=draw_heat_maps(maps, f"CKA, {config.estimator} ({rows} rows)"),
        sentence=f"CKA of {rows} rows, {config.estimator}: {_extremes(maps[-1])}",
    )


def _extremes(heat_map: HeatMap) -> str:
    """The most and the least alike of different features."""
    pairs = [
        (value, row, column)
        for place, (row, values) in enumerate(zip(heat_map.rows, heat_map.values, strict=True))
        for other, (column, value) in enumerate(zip(heat_map.columns, values, strict=True))
        if value is not None and (row != column or place != other or heat_map.rows != heat_map.columns)
    ]
    if not pairs:
        return "one feature, nothing to compare"
    (most, a, b), (least, c, d) = max(pairs), min(pairs)
    return f"most alike {a} and {b} ({most:.3f}), least {c} and {d} ({least:.3f})"
