"""Measured duration of an extraction on this machine, stage by stage, for `plan`.

On a GPU the stages overlap, and the slowest decides. On a CPU decoding, the backbone and the processor time
of writing share the cores, so that these add up, and only the disk works beside them. Other programs on
the machine slow the measurement as they will slow the extraction; their share of the processors is reported.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from extract.extractor import stage_times
from extract.extractor.memory import encoded_row_bytes
from pipelines.catalog.stores import existing_folder
from pipelines.forecast.disk_probe import measure_disk
from pipelines.forecast.measurement_cache import Figures, SpeedCache
from pipelines.forecast.planned_extraction import Extraction
from pipelines.forecast.request_estimate import fits_block_cache
from pipelines.machine.free_memory import available_bytes
from stores.format.plan import StorePlan
from stores.remote.block_cache import cache_folder
from stores.remote.probe import transfer_rates
from stores.remote.store_url import StoreUrl

MEASURED_S = 3.0
"""Of decoding, and of forward passes of a bin, where details are asked for."""
QUICK_S = 1.0
"""The same for the answer in three lines."""
BINS = 2
"""Bins whose forward pass is measured in detail: those with most work. Rows of others cost in proportion to
pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of each stage."""

    decode_seconds: float
    """A row, from its source to the view and its targets, with all threads at work."""
    forward_seconds: float
    """A row of the bin with most rows, through the backbone and the codec, in batches."""
    write_seconds: float
    """A mean row, to the disk with fsync, or uploaded."""
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
    """Past the page cache; of a store at a URL from the block cache on the disk, or where that is too small
    by downloads."""
    cached_bytes_per_s: float
    """The same from the page cache."""
    download_bytes_per_s: float | None = None
    """Of a store at a URL."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def program_seconds() -> float:
    """Since `python -m pipelines` was started; 0 in any other program, which may have done anything since."""
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is None or main.name != "pipelines.__main__" or not Path("/proc/self/stat").exists():
        return 0.0
    ticks = int(
        Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    )  # field 22, after the name
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def measure_speed(
    extraction: Extraction, cache: SpeedCache, prepared_s: float = 0.0, *, in_detail: bool = False
) -> Speed:
    """The stages, measured or from the cache; the backbone untrained, whose speed is the same.

    Args:
        prepared_s: what the program took until the extraction was prepared, and will take again.
        in_detail: for longer, and of more bins.

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
        "in_detail": in_detail,
    }
    measured_s = MEASURED_S if in_detail else QUICK_S
    decode = cache.get("decode", data, partial(_measure_decode, extraction, measured_s))
    surveyed = cache.get("survey", data, partial(_measure_survey, extraction))
    bins = sorted(plan.bins, key=lambda b: b.rows * b.height_px * b.width_px, reverse=True)[
        : BINS if in_detail else 1
    ]
    forward = cache.get(
        "backbone",
        {
            "backbone": extraction.card.identity(weights_sha256="", precision=extraction.precision),
            "levels": list(plan.pyramid.names),
            "codec": plan.codec,
            "bins": [b.to_json() for b in bins],
            "device": str(extraction.device),
            "in_detail": in_detail,
        },
        partial(_measure_forward, extraction, [plan.bins.index(b) for b in bins], measured_s),
    )
    folder = extraction.stores
    place: int | str
    if isinstance(folder, StoreUrl):
        kind, place = "bucket", str(folder)
        measure = partial(_measure_bucket, plan, folder)
    else:
        folder = existing_folder(folder)
        kind, place = "disk", os.stat(folder).st_dev
        measure = partial(measure_disk, plan, folder)
    disk_facts = {
        "disk": place,
        "bin": bins[0].to_json(),
        "levels": list(plan.pyramid.names),
    }
    disk = cache.get(kind, {**disk_facts, "codec": plan.codec}, measure)
    if isinstance(folder, StoreUrl) and not fits_block_cache(extraction):
        disk |= dict.fromkeys(("read_bytes_per_s", "cached_bytes_per_s"), disk["download_bytes_per_s"])
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


def _measure_bucket(plan: StorePlan, folder: StoreUrl) -> Figures:
    """Rates of the bucket, and of this machine's disk that holds the block cache, which later epochs read."""
    return {**measure_disk(plan, existing_folder(cache_folder())), **transfer_rates(folder)}


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


def _measure_decode(extraction: Extraction, measured_s: float) -> Figures:
    """Seconds a row."""
    plan = extraction.estimate.plan
    return {"seconds": stage_times.decode_seconds(extraction.dataset, plan, extraction.workers, measured_s)}


def _measure_survey(extraction: Extraction) -> Figures:
    """Seconds a record."""
    dataset, recipe, choices = extraction.dataset, extraction.recipe, extraction.estimate.choices
    return {"seconds": stage_times.survey_seconds(dataset, recipe, choices.views, choices.seed)}


def _measure_forward(extraction: Extraction, indices: Sequence[int], measured_s: float) -> Figures:
    """Bin name -> seconds a row; `start`: until the first batch of each is done; `others_share`.

    Raises `stage_times.TooLarge`.
    """
    backbone, plan, start = stage_times.build_untrained(
        extraction.card,
        extraction.estimate.plan,
        device=extraction.device,
        precision=extraction.precision,
        free_bytes=available_bytes(),
    )
    figures: Figures = {}
    began, before = time.perf_counter(), _others_seconds()
    for index in indices:
        first, seconds = stage_times.forward_seconds(plan, index, backbone, measured_s)
        figures[plan.bins[index].name] = seconds
        start += first
    others = (_others_seconds() - before) / (_cores() * (time.perf_counter() - began))
    return {**figures, "start": start, "others_share": min(max(others, 0.0), 1.0)}


def _others_seconds() -> float:
    """Seconds that this process's processors have worked for other programs, as reported by Linux."""
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
