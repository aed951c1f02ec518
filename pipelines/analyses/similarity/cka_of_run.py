"""CKA inside a trained head: levels of its neck, stages of its box heads, pixel decoder or queries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.analysis.part_outputs import Groups, part_names, part_outputs
from heads.contract import Head
from heads.errors import HeadError
from pipelines.analyses.cost import Cost, announced_rows, products_a_second
from pipelines.analyses.memory import memory_bytes
from pipelines.analyses.pictures.heat_maps import HeatMap
from pipelines.analyses.sample_rows import RowSample, sample_rows
from pipelines.analyses.similarity.cka import LEAST_ROWS, cka_matrix
from pipelines.analyses.similarity.cka_result import cka_analysis
from pipelines.analyses.similarity.held_features import GramCollector, batch_rows, pooled_map
from pipelines.analyses.written import Analysis, store_identity
from pipelines.catalog.missing_levels import lacking
from pipelines.config.analyses import AnalyseConfig
from pipelines.errors import UsageError
from pipelines.machine.devices import choose_device
from pipelines.runs.run_folder import RunRecord, read_run
from pipelines.runs.trained_head import load_head
from stores.reading.reader import Store, open_store
from stores.remote.store_url import store_path

USUAL_ROWS = 512
MOST_EXAMPLES = 4096
"""RoIs of all images: their Gram matrices take 134 MB each."""


def cka_of_run(config: AnalyseConfig) -> Analysis:
    """A matrix for each level, or one for all RoIs or queries, over rows of a store.

    Raises UsageError for a part that the head lacks or a store without its levels, IdentityError for a store
    of another data set or backbone.
    """
    folder, device = Path(config.run or ""), choose_device(config.device)
    record = read_run(folder)
    head, step = load_head(folder, device, config.checkpoint)
    part = _chosen_part(head, config.part)
    with open_store(_store_path(config, record)) as store:
        record.check_same_source(store.identity, str(store.path))
        if missing := lacking(record.levels, store.levels):
            raise UsageError(f"{store.path} lacks {', '.join(missing)}, which the run's head reads")
        sample = sample_rows(store, config.rows or USUAL_ROWS)
        began = time.perf_counter()
        first = row_outputs(head, part, store, sample, sample.rows[0], device)
        seconds = time.perf_counter() - began
        per_image = max(1, max(len(x) for group in first.values() for x in group.values()))
        wanted = min(len(sample.rows), MOST_EXAMPLES // per_image)
        if wanted * per_image < LEAST_ROWS:
            raise UsageError(f"{store.path} has {wanted} rows: cka needs {LEAST_ROWS} or more")
        values = sum(
            int(np.prod(x.shape[1:])) if config.pool == "none" else x.shape[1]
            for group in first.values()
            for x in group.values()
        )
        rows = announced_rows(wanted, _cost(store, record, values, per_image, seconds))
        in_batch = batch_rows(rows * per_image, values, memory_bytes(config.memory_gb), config.batch)
        collectors = {name: GramCollector(in_batch) for name in first}
        examples = 0
        for row in sample.rows[:rows]:
            groups = row_outputs(head, part, store, sample, row, device)
            examples += max(len(x) for group in groups.values() for x in group.values())
            for name, group in groups.items():
                for output, x in group.items():
                    for each in x:
                        collectors[name].add(output, pooled_map(each, config.pool))
        # Of RoIs some images have fewer: what is left of a batch larger than all is one batch.
        for collector in collectors.values():
            collector.finish()
        identity = {
            "run": str(folder),
            "step": step,
            "head": record.head,
            "part": part,
            "stores": [store_identity(store)],
            "rows_note": sample.note,
            "images": rows,
            "keys": [[store.keys[row], int(store.views[row])] for row in sample.rows[:rows]],
        }
    maps = [
        HeatMap(
            title=f"{record.head}, {name}",
            rows=list(collector.grams),
            columns=list(collector.grams),
            values=cka_matrix(
                list(collector.grams.values()), list(collector.grams.values()), config.estimator
            ),
            borders=(_stages(list(collector.grams)),) * 2,
        )
        for name, collector in collectors.items()
    ]
    held = next(iter(collectors.values())).rows
    return cka_analysis(
        config,
        folder.name,
        maps,
        identity=identity,
        rows=held,
        batch_rows=min(in_batch, held),
        wanted_rows=min(examples, held),
    )


def row_outputs(
    head: Head, part: str, store: Store, sample: RowSample, row: int, device: torch.device
) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Outputs of a part for one row, maps cut to the cells that every row of the sample shows."""
    features = {
        name: torch.from_numpy(x).to(device) for name, x in store.read_features([row], head.levels).items()
    }
    height, width = store.valid_hw[row].tolist()
    try:
        groups: Groups = part_outputs(head, part, features, (height, width))
    except HeadError as error:
        raise UsageError(f"--part {error}") from None
    padded = tuple(store.padded_hw[row].tolist())
    return {
        name: {
            output: _cut(x, padded, sample.shown_hw) if part in ("neck", "pixel") else _numbers(x)
            for output, x in group.items()
        }
        for name, group in groups.items()
    }


def _cut(x_NCyx: Tensor, padded_hw: Sequence[int], shown_hw: Sequence[int]) -> npt.NDArray[np.float32]:
    height, width = (
        max(1, cells * shown // padded)
        for cells, shown, padded in zip(x_NCyx.shape[2:], shown_hw, padded_hw, strict=True)
    )
    return _numbers(x_NCyx[:, :, :height, :width])


def _numbers(x: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = x.float().cpu().numpy()
    return found


def _chosen_part(head: Head, asked: str | None) -> str:
    there = part_names(head)
    if not there or asked not in (None, *there):
        raise UsageError(
            f"--part {asked or ''}: the run's head has {', '.join(there) or 'no neck, box heads or decoders'}"
        )
    return asked or there[0]


def _store_path(config: AnalyseConfig, record: RunRecord) -> Path:
    if len(config.store) > 1:
        raise UsageError("--store: a run is analysed on one store")
    if config.store:
        return store_path(config.store[0])
    if not record.stores:
        raise UsageError("the run was trained online, without a store: pass --store")
    return store_path(record.stores[0].path)


def _cost(store: Store, record: RunRecord, values: int, per_image: int, seconds: float) -> Cost:
    buffers = store.buffers(1, max(store.plan.bins, key=lambda b: b.rows).name, record.levels)
    stored = sum(array.nbytes for kinds in buffers.values() for array in kinds.values())
    speed = products_a_second()
    return Cost(
        multiply_adds=lambda rows: (rows * per_image) ** 2 * values,
        bytes_read=lambda rows: rows * stored,
        seconds=lambda rows: rows * seconds + (rows * per_image) ** 2 * values / speed,
    )


def _stages(names: Sequence[str]) -> list[int]:
    """Before which outputs another stage of a cascade begins."""
    return [at for at, name in enumerate(names) if at and name.startswith("RoI")]
