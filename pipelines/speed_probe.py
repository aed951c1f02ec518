"""A short measurement for `plan`: how long a view takes to decode, and a row to go through the backbone."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract.backbones import build_trunk
from extract.datasets import Dataset
from extract.frozen_backbone import FrozenBackbone
from extract.sources import SourceError, decode_image
from extract.trunks import probe
from extract.view import View
from extract.weights import Weights
from pipelines.extraction import Extraction

RECORDS = 4
"""Images that are decoded; spread over the data set."""
PASSES = 2
"""Forward passes; the first warms up, the quickest counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds for one row."""

    decode_seconds: float
    """Reading, decoding and making one view, on one thread."""
    forward_seconds: float
    """The forward pass of one row of the bin with most rows."""
    forward_pixels: int
    """Pixels of such a row; rows of other bins are taken to cost in proportion."""

    def total_seconds(self, extraction: Extraction) -> float:
        """The whole extraction: decoding on all threads beside the forward passes, the slower of both."""
        plan = extraction.estimate.plan
        pixels = sum(b.rows * b.height_px * b.width_px for b in plan.bins)
        decode = len(plan.rows) * self.decode_seconds / extraction.workers
        return max(self.forward_seconds * pixels / self.forward_pixels, decode)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class TooLarge(MemoryError):
    """The backbone does not fit into what memory is free, so nothing can be measured."""


def measure_speed(extraction: Extraction) -> Speed:
    """Decodes a few views and sends a batch through the backbone, untrained: its speed is the same.

    Raises:
        TooLarge: the memory does not suffice for the backbone.
        OSError: a source could not be read.
    """
    b = max(extraction.estimate.plan.bins, key=lambda candidate: candidate.rows)
    batch = (
        (b.batch_rows or 1) if extraction.device.type == "cuda" else 1
    )  # a CPU takes rows one by one anyhow
    backbone = _untrained(extraction)
    pixels = torch.zeros((batch, b.height_px, b.width_px, 3), dtype=torch.uint8)
    valid_hw = torch.tensor([[b.height_px, b.width_px]] * batch)
    seconds = min(_timed(partial(_forward, backbone, pixels, valid_hw)) for _ in range(PASSES))
    return Speed(
        decode_seconds=_decode_seconds(extraction),
        forward_seconds=seconds / batch,
        forward_pixels=b.height_px * b.width_px,
    )


def _untrained(extraction: Extraction) -> FrozenBackbone:
    card = extraction.card
    parameters = sum(value.numel() for value in probe(card.timm_id, card.constructor_args).parameters())
    free = _available_bytes()
    needed = 12 * parameters  # float32 twice while it is built, and room for activations
    if needed > free:
        raise TooLarge(
            f"{parameters / 1e9:.1f} billion parameters need {needed / 1e9:.0f} GB, {free / 1e9:.0f} are free"
        )
    weights = Weights(build_trunk(card).state_dict(), sha256="untrained")
    return FrozenBackbone(card, weights, device=extraction.device, precision=extraction.precision)


def _available_bytes() -> int:
    """Memory that can be had without swapping, page cache included; Linux says it in kB."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) << 10 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _forward(backbone: FrozenBackbone, pixels: torch.Tensor, valid_hw: torch.Tensor) -> None:
    backbone(pixels, valid_hw)
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)


def _decode_seconds(extraction: Extraction) -> float:
    """Mean over a few records; 0 where none of them can be decoded."""
    dataset, rows = extraction.dataset, extraction.estimate.plan.rows
    first_row = {key: row for row, key in reversed(list(enumerate(rows.keys)))}
    seconds = []
    for index in np.linspace(0, len(dataset.records) - 1, num=RECORDS, dtype=int).tolist():
        view = View.from_params(rows.params[first_row[dataset.records[index].key]])
        try:
            seconds.append(_timed(partial(_make_view, dataset, index, view)))
        except (SourceError, ValueError):  # a broken image, or of another size than its header said
            continue
    return float(np.mean(seconds)) if seconds else 0.0


def _make_view(dataset: Dataset, index: int, view: View) -> None:
    view.apply_image(decode_image(dataset.read_source(index)))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
