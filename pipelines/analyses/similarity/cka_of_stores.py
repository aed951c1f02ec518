"""CKA between the levels of a store, or of two stores of the same records and views."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pipelines.analyses.cost import Cost, announced_rows, products_a_second
from pipelines.analyses.memory import memory_bytes
from pipelines.analyses.pictures.heat_maps import HeatMap, stage_borders
from pipelines.analyses.sample_rows import RowSample, read_maps, same_rows, sample_rows, values_a_row
from pipelines.analyses.similarity.cka import LEAST_ROWS, cka_matrix
from pipelines.analyses.similarity.cka_result import cka_analysis
from pipelines.analyses.similarity.held_features import GramCollector, batch_rows, pooled_map
from pipelines.analyses.written import Analysis, store_identity
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from stores.reading.reader import Store, open_store

USUAL_ROWS = 512


def levels_with_maps(store: Store, asked: Sequence[str] | None) -> list[str]:
    """The levels asked for, else all. Raises UsageError for one that the store lacks."""
    if missing := [level for level in asked or () if level not in store.levels]:
        raise UsageError(f"{store.path} lacks {', '.join(missing)}; it holds {', '.join(store.levels)}")
    return list(asked or store.levels)


def cka_of_stores(config: AnalyseConfig) -> Analysis:
    """One matrix: levels of the first store by those of the second, or of itself.

    Raises UsageError for more than two stores or fewer than four rows, IdentityError for stores of other
    records or views.
    """
    if len(config.store) > 2:
        raise UsageError(f"--store: cka compares one or two stores, found {len(config.store)}")
    with ExitStack() as opened:
        stores = [opened.enter_context(open_store(path)) for path in config.store]
        levels = [levels_with_maps(store, config.levels) for store in stores]
        sample = sample_rows(stores[0], config.rows or USUAL_ROWS)
        if len(sample.rows) < LEAST_ROWS:
            raise UsageError(f"{stores[0].path} has {len(sample.rows)} rows: cka needs {LEAST_ROWS} or more")
        samples = [sample, *(same_rows(stores[0], sample, other) for other in stores[1:])]
        rows = announced_rows(len(sample.rows), _cost(stores, samples, levels, config.pool))
        widths = [values_a_row(*each, config.pool) for each in zip(stores, samples, levels, strict=True)]
        in_batch = batch_rows(
            rows, sum(sum(of.values()) for of in widths), memory_bytes(config.memory_gb), config.batch
        )
        collectors = [GramCollector(in_batch) for _ in stores]
        # The stores are read in turn, row by row, so that a batch of each is held at a time.
        readers = [read_maps(*each, rows) for each in zip(stores, samples, levels, strict=True)]
        for maps_of_row in zip(*readers, strict=True):
            for collector, maps in zip(collectors, maps_of_row, strict=True):
                for level, x in maps.items():
                    collector.add(level, pooled_map(x, config.pool))
        identities = [store_identity(store) for store in stores]
        names = [_short_name(store) for store in stores]
    first, last = collectors[0].grams, collectors[-1].grams
    heat_map = HeatMap(
        title="CKA between levels" + (" of two stores" if len(stores) == 2 else f" of {names[0]}"),
        rows=levels[0],
        columns=levels[-1],
        values=cka_matrix(list(first.values()), list(last.values()), config.estimator),
        row_label=names[0] if len(stores) == 2 else "level",
        column_label=names[-1] if len(stores) == 2 else "level",
        borders=(stage_borders(levels[0]), stage_borders(levels[-1])),
    )
    return cka_analysis(
        config,
        names[0] if len(stores) == 1 else f"{names[0]}-and-{names[1]}",
        [heat_map],
        identity={"stores": identities, "rows_note": sample.note, "keys": _keys(stores[0], sample, rows)},
        rows=collectors[0].rows,
        batch_rows=in_batch,
        wanted_rows=rows,
    )


def _cost(
    stores: Sequence[Store], samples: Sequence[RowSample], levels: Sequence[Sequence[str]], pool: str
) -> Cost:
    each = list(zip(stores, samples, levels, strict=True))
    products = sum(sum(values_a_row(*of, pool).values()) for of in each)
    stored = sum(sum(_stored_bytes(store, names).values()) for store, _, names in each)
    began = time.perf_counter()
    for store, sample, names in each:
        next(read_maps(store, sample, names, 1))
    reading = time.perf_counter() - began
    speed = products_a_second()
    return Cost(
        multiply_adds=lambda rows: rows**2 * products,
        bytes_read=lambda rows: rows * stored,
        seconds=lambda rows: rows * reading + rows**2 * products / speed,
    )


def _stored_bytes(store: Store, levels: Sequence[str]) -> Mapping[str, int]:
    """Bytes of a row of the largest bin by level, as they are stored."""
    total = dict.fromkeys(levels, 0)
    sizes = [b.rows for b in store.plan.bins]
    for level, kinds in store.buffers(1, store.plan.bins[sizes.index(max(sizes))].name, levels).items():
        total[level] = sum(array.nbytes for array in kinds.values())
    return total


def _short_name(store: Store) -> str:
    return store.path.name


def _keys(store: Store, sample: RowSample, rows: int) -> list[list[Any]]:
    return [[store.keys[row], int(store.views[row])] for row in sample.rows[:rows]]
