"""A short measurement for `plan`: each stage of an extraction on this machine, and the time they add up to.

On a GPU the stages overlap, and the slowest decides. On a CPU decoding, the backbone and the processor time
of writing share the cores, so that these add up, and only the disk works beside them. What others do on the
machine is in all figures, as it will be in the extraction; how much of the processors they took is told.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from extract.backbones.compiler import compiles
from extract.backbones.cuda_graphs import PLAIN_CALLS
from extract.backbones.frozen import BackboneTooLarge, FrozenBackbone
from extract.backbones.loading import build_trunk
from extract.backbones.weights import Weights
from extract.extractor.batch_order import views_at_once
from extract.extractor.batch_shapes import BatchTooLarge, fit_batches, shape_matters
from extract.extractor.codec_error import sample_cells
from extract.extractor.encode_batch import encode_batch, view_shape
from extract.extractor.memory import encoded_row_bytes
from extract.extractor.row_loader import LoadedRow, RowLoader, SourceDigests
from extract.planning.plan import survey, view_count
from extract.sources.record import READ_THREADS
from extract.swin.timm_swin import probe
from pipelines.catalog.stores import existing_folder
from pipelines.forecast.disk_probe import measure_disk
from pipelines.forecast.measurement_cache import Figures, SpeedCache
from pipelines.forecast.planned_extraction import Extraction
from pipelines.machine.free_memory import available_bytes
from stores.errors import IdentityError
from stores.format.plan import ShardId, StorePlan

MEASURED_S = 3.0
"""Of decoding, and of forward passes of a bin."""
FEWEST_PASSES = 3
BINS = 2
"""Bins whose forward pass is measured: those with most work. Rows of others cost in proportion to pixels."""
SURVEYED = 24
"""Records whose annotations are read, as the plan of a store reads all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of each stage."""

    decode_seconds: float
    """A row, from its source to the view and its targets, with all threads at work."""
    forward_seconds: float
    """A row of the bin with most rows, through the backbone and the codec, in batches."""
    write_seconds: float
    """A mean row, to the disk with fsync."""
    start_seconds: float
    """Before the first row: libraries loaded, records listed, annotations read, the backbone built and run
    for the first time."""
    total_seconds: float
    """The whole extraction."""
    bottleneck: str
    """decode, backbone or write."""
    others_share: float
    """Of the processors' time, that other programs took while the backbone was measured."""
    write_bytes_per_s: float
    write_processor_s_per_gb: float
    """Seconds of one processor for 1e9 bytes."""
    read_bytes_per_s: float
    """Past the page cache."""
    cached_bytes_per_s: float
    """From the page cache."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class TooLarge(MemoryError):
    """The backbone does not fit into what memory is free, so nothing can be measured."""


def program_seconds() -> float:
    """Since `python -m pipelines` was started; 0 in any other program, which may have done anything since."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is None or main.name != "pipelines.__main__" or not Path("/proc/self/stat").exists():
        return 0.0
    ticks = int(
        Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    )  # field 22, after the name
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def measure_speed(extraction: Extraction, cache: SpeedCache, prepared_s: float = 0.0) -> Speed:
    """The stages, measured or from the cache; the backbone untrained, whose speed is the same.

    Args:
        prepared_s: what the program took until the extraction was prepared, and will take again.

    Raises:
        TooLarge: the memory, or the device's, does not suffice for the backbone.
        OSError: a source could not be read.
    """
    plan = extraction.estimate.plan
    data = {
        "records": len(extraction.dataset.records),
        "source_bytes": sum(record.source_bytes for record in extraction.dataset.records),
        "views": plan.identity["views"],
        "workers": extraction.workers,
    }
    decode = cache.get("decode", data, partial(_measure_decode, extraction))
    surveyed = cache.get("survey", data, partial(_measure_survey, extraction))
    bins = sorted(plan.bins, key=lambda b: b.rows * b.height_px * b.width_px, reverse=True)[:BINS]
    forward = cache.get(
        "backbone",
        {
            "backbone": extraction.card.identity(weights_sha256="", precision=extraction.precision),
            "levels": list(plan.pyramid.names),
            "codec": plan.codec,
            "bins": [b.to_json() for b in bins],
            "device": str(extraction.device),
        },
        partial(_measure_forward, extraction, [plan.bins.index(b) for b in bins]),
    )
    folder = existing_folder(extraction.stores)
    disk_facts = {
        "disk": os.stat(folder).st_dev,
        "bin": bins[0].to_json(),
        "levels": list(plan.pyramid.names),
    }
    disk = cache.get("disk", {**disk_facts, "codec": plan.codec}, partial(measure_disk, plan, folder))
    start = prepared_s + forward["start"] + surveyed["seconds"] * len(extraction.dataset.records)
    return _combined(extraction, start, decode["seconds"], forward, disk)


def _combined(extraction: Extraction, start: float, decode: float, forward: Figures, disk: Figures) -> Speed:
    plan, dataset = extraction.estimate.plan, extraction.dataset
    share = 1.0 if dataset.subset is None else len(dataset.subset) / len(dataset.records)
    written = sum(b.rows * encoded_row_bytes(plan, b) for b in plan.bins)
    measured = {name: seconds for name, seconds in forward.items() if name[0].isdigit()}
    stages = {
        "decode": share * decode * len(plan.rows),
        "backbone": share * sum(b.rows * forward_seconds(b.name, measured) for b in plan.bins),
        "write": share * written / disk["write_bytes_per_s"],
    }
    if extraction.device.type == "cpu":
        writing = share * written / 1e9 * disk["write_processor_s_per_gb"] / _cores()
        busy = max(stages["decode"] + stages["backbone"] + writing, stages["write"])
    else:
        busy = max(stages.values())
    largest = max(plan.bins, key=lambda b: b.rows)
    return Speed(
        decode_seconds=decode,
        forward_seconds=forward_seconds(largest.name, measured),
        write_seconds=stages["write"] / (share * len(plan.rows)),
        start_seconds=start,
        total_seconds=start + busy,
        bottleneck=max(stages, key=lambda stage: stages[stage]),
        others_share=forward["others_share"],
        **disk,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def forward_seconds(name: str, measured: Figures) -> float:
    """A row of the bin `name`, from the bins that were measured: that of the next larger or smaller area.

    >>> forward_seconds("64x32", {"64x64": 0.5, "512x512": 9.0})
    0.25
    """
    if name in measured:
        return measured[name]
    area = _area(name)
    nearest = min(measured, key=lambda other: abs(np.log(_area(other) / area)))
    return measured[nearest] * area / _area(nearest)


def _area(name: str) -> int:
    height, width = map(int, name.split("x"))
    return height * width


def _measure_decode(extraction: Extraction) -> Figures:
    """Seconds a row, while every worker decodes; rows that cannot be decoded take no part."""
    plan, subset = extraction.estimate.plan, extraction.dataset.subset
    loader = RowLoader(extraction.dataset, plan, SourceDigests())
    together = views_at_once(plan)
    rows = np.random.default_rng(0).permutation(len(plan.rows) // together).tolist()
    if subset is not None:
        rows = [row for row in rows if plan.rows.keys[row] in subset]
    groups = [list(range(row, len(plan.rows), len(plan.rows) // together)) for row in rows]
    size = 2 * extraction.workers
    rounds = [groups[i : i + size] for i in range(0, len(groups), size)]
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(extraction.workers) as pool:
        for some in rounds:
            done += sum(pool.map(partial(_load, loader), some))
            if time.perf_counter() - began > MEASURED_S:
                break
    return {"seconds": (time.perf_counter() - began) / done if done else 0.0}


def _load(loader: RowLoader, rows: Sequence[int]) -> int:
    """How many rows were loaded."""
    try:
        return len(loader.load_views(rows))
    except IdentityError:  # `extract` will say so
        return 0


def _measure_survey(extraction: Extraction) -> Figures:
    """Seconds a record, for reading its annotation and choosing its views."""
    dataset, recipe, choices = extraction.dataset, extraction.recipe, extraction.estimate.choices
    work = partial(survey, dataset, recipe, view_count(recipe, choices.views), choices.seed)
    chosen = np.linspace(0, len(dataset.records) - 1, num=min(SURVEYED, len(dataset.records)), dtype=int)
    began = time.perf_counter()
    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(work, chosen.tolist()))
    return {"seconds": (time.perf_counter() - began) / len(chosen)}


def _measure_forward(extraction: Extraction, indices: Sequence[int]) -> Figures:
    """Bin name -> seconds a row; `start`: until the first batch of each is done; `others_share`.

    Raises TooLarge.
    """
    weights = _untrained(extraction)
    began = time.perf_counter()
    try:
        backbone = FrozenBackbone(
            extraction.card,
            weights,
            device=extraction.device,
            precision=extraction.precision,
            compiled=compiles(extraction.device),
        )
        plan = fit_batches(extraction.estimate.plan, backbone)
    except (BackboneTooLarge, BatchTooLarge) as error:
        raise TooLarge(str(error)) from error
    start, figures = time.perf_counter() - began, {}
    began, before = time.perf_counter(), _others_seconds()
    for index in indices:
        first, figures[plan.bins[index].name] = _forward_seconds(plan, index, backbone)
        start += first
    others = (_others_seconds() - before) / (_cores() * (time.perf_counter() - began))
    return {**figures, "start": start, "others_share": min(max(others, 0.0), 1.0)}


def _others_seconds() -> float:
    """For how long the processors that this one may use have worked for other programs; Linux tells it."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0.0
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for name, *fields in (line.split() for line in lines if line.startswith("cpu")):
        if name in ours:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def _forward_seconds(plan: StorePlan, index: int, backbone: FrozenBackbone) -> tuple[float, float]:
    """Seconds that the first batches of a bin take longer than later ones, and of a row in these."""
    b = plan.bins[index]
    shape = view_shape(plan, index)
    rows = [noise_row(shape)] * min(b.batch_rows or 1, b.shard_rows)
    sampled = sample_cells(plan, ShardId(index, 0), range(len(rows)))

    def forward() -> None:
        encode_batch(backbone, plan.codec, rows, shape, sampled).wait()

    warm_up = PLAIN_CALLS + 1 if shape_matters(backbone.device) else 1
    first, passes = sum(_timed(forward) for _ in range(warm_up)), [_timed(forward)]
    while len(passes) < FEWEST_PASSES or sum(passes) < MEASURED_S:
        passes.append(_timed(forward))
    usual = float(np.mean(passes))  # what others do on the machine slows the extraction just as much
    return max(0.0, first - warm_up * usual), usual / len(rows)


def noise_row(shape: tuple[int, ...]) -> LoadedRow:
    """Pixels without meaning, ([T,] H, W). Not empty ones: a CPU takes a fifth longer for these."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return LoadedRow(pixels=pixels, valid_hw=(shape[-2], shape[-1]), targets={}, source_sha256=bytes(32))


def _untrained(extraction: Extraction) -> Weights:
    """Initial weights, whose speed is that of trained ones. Raises TooLarge."""
    card = extraction.card
    parameters = sum(value.numel() for value in probe(card.timm_id, card.constructor_args).parameters())
    free = available_bytes()
    needed = 12 * parameters  # float32 twice while it is built, and room for activations
    if needed > free:
        raise TooLarge(
            f"{parameters / 1e9:.1f} billion parameters need {needed / 1e9:.0f} GB, {free / 1e9:.0f} are free"
        )
    return Weights(build_trunk(card).state_dict(), sha256="untrained")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
