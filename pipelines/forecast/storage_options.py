"""Compares storing all levels, only deep levels, or none: disk, time, advice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from extract.backbones.frozen_swin import FoldedSwin
from extract.backbones.loading import FrozenBackbone, backbone_card, build_trunk
from extract.backbones.weights import Weights
from extract.planning.compressed_size import measured
from extract.planning.plan import needed_bytes
from pipelines.catalog.missing_levels import lacks_first_levels
from pipelines.forecast.caching_advice import HeadForecast
from pipelines.forecast.measurement_cache import Figures, SpeedCache
from pipelines.forecast.planned_extraction import Extraction, free_bytes
from pipelines.forecast.speed_probe import MEASURED_S, Speed
from stores.format.pixel_differences import PIXEL_DIFFERENCES, differences, undo_differences
from stores.format.plan import StorePlan, feature_row_bytes
from stores.pyramid import PyramidSpec
from stores.shards.zstd_frames import decode_frame, encode_frame

DEEP_STAGE = 3
"""The first stage whose levels a deep store keeps, the paper's p4: the two before it hold 80 % of a pyramid's
bytes and 8 to 17 % of its operations."""

PASSES = 3
"""Whose median is the share of the first stages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to train the heads of a plan."""

    name: str
    """full store, deep store with stored pixels, deep store with source images, or online."""
    command: str
    """Its distinguishing flags of `make extract` or train-head."""
    bytes: int
    """On the disk."""
    heads: dict[str, float]
    """Seconds of a step of each head."""
    total_seconds: float
    """The extraction and one run of each head."""
    fits: bool
    """Whether the disk has room."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_ways(
    extraction: Extraction,
    forecasts: Sequence[HeadForecast],
    speed: Speed,
    cache: SpeedCache,
    memory_bytes: int,
) -> list[Way]:
    """The options, the fastest that fits first; empty if no level can be recomputed.

    Args:
        extraction: of all levels.
        forecasts: of the heads, from a store of all levels.
        memory_bytes: that a store may take of the page cache.
    """
    plan = extraction.estimate.plan
    deep = [level.name for level in plan.pyramid if level.stage >= DEEP_STAGE]
    shallow = [level.name for level in plan.pyramid if level.stage < DEEP_STAGE]
    if plan.frames is not None or not deep or not shallow or not forecasts:
        return []
    costs = _Costs(extraction, speed, cache, memory_bytes)
    levels = f"LEVELS={','.join(deep)}"
    ways = [
        costs.way("full store", "all levels", plan, forecasts, None, 0.0),
        *(
            costs.way(
                f"deep store with {'stored pixels' if kept else 'source images'}",
                f"{levels} PIXELS={'stored' if kept else 'source'}",
                deep_plan(plan, deep, pixels=kept),
                forecasts,
                shallow,
                costs.unpacking_seconds() if kept else speed.decode_seconds,
            )
            for kept in (True, False)
        ),
        Way(
            name="online",
            command="train-head --online",
            bytes=0,
            heads={f.head: f.online_seconds for f in forecasts},
            total_seconds=sum(f.steps * f.online_seconds for f in forecasts),
            fits=True,
        ),
    ]
    return sorted(ways, key=lambda way: (not way.fits, way.total_seconds))


def deep_plan(plan: StorePlan, levels: Sequence[str], *, pixels: bool) -> StorePlan:
    """The same rows with those levels alone, with or without pixels."""
    features = (*_without_pixels(plan), *[PIXEL_DIFFERENCES] * pixels)
    return replace(plan, pyramid=plan.pyramid.select(levels), pixels=pixels, required_features=features)


def _without_pixels(plan: StorePlan) -> tuple[str, ...]:
    return tuple(name for name in plan.required_features if name != PIXEL_DIFFERENCES)


class _Costs:
    """Costs of the options on this machine."""

    def __init__(self, extraction: Extraction, speed: Speed, cache: SpeedCache, memory_bytes: int) -> None:
        self._extraction, self._speed, self._cache, self._memory = extraction, speed, cache, memory_bytes
        self._bin = max(extraction.estimate.plan.bins, key=lambda b: b.rows)

    def way(
        self,
        name: str,
        command: str,
        plan: StorePlan,
        forecasts: Sequence[HeadForecast],
        shallow: Sequence[str] | None,
        host_seconds: float,
    ) -> Way:
        """
        Args:
            shallow: levels that are recomputed; None for none.
            host_seconds: a row's pixels, on the processors.
        """
        total = self._bytes(plan)
        recompute = self._shallow_seconds(shallow) if shallow else 0.0
        steps = {
            f.head: self._step_seconds(f, plan, total, f.batch_size * recompute, f.batch_size * host_seconds)
            for f in forecasts
        }
        training = sum(f.steps * steps[f.head] for f in forecasts)
        return Way(
            name=name,
            command=command,
            bytes=total,
            heads=steps,
            total_seconds=self._speed.total_seconds + training,
            fits=total <= free_bytes(self._extraction.stores),
        )

    def _step_seconds(
        self, forecast: HeadForecast, plan: StorePlan, total: int, recompute: float, host: float
    ) -> float:
        """Reading and the host's work run beside a GPU's; a processor does recomputation and both itself."""
        speed = self._speed
        rate = speed.cached_bytes_per_s if total <= self._memory else speed.read_bytes_per_s
        row_bytes = total / len(plan.rows) if plan.pixels else self._feature_bytes(plan)
        read = forecast.batch_size * row_bytes / rate
        if self._extraction.device.type == "cpu":
            return max(forecast.head_seconds + recompute + host, read)
        return max(forecast.head_seconds + recompute, read, host)

    def _feature_bytes(self, plan: StorePlan) -> int:
        b = self._bin
        return sum(feature_row_bytes(plan.pyramid, plan.codec, b.height_px, b.width_px, plan.frames).values())

    def _bytes(self, plan: StorePlan) -> int:
        """Of the whole store; pixels and targets measured on some rows."""
        dataset, estimate = self._extraction.dataset, self._extraction.estimate
        if plan is estimate.plan:
            return estimate.total_bytes
        facts = {
            "views": plan.identity["views"],
            "records": len(dataset.records),
            "source_bytes": sum(record.source_bytes for record in dataset.records),
            "levels": list(plan.pyramid.names),
            "codec": plan.codec,
            "pixels": plan.pixels,
            "targets": [target.to_json() for target in plan.targets],
        }

        def measure() -> Figures:
            other = replace(estimate, plan=plan, total_bytes=needed_bytes(plan, dataset))
            return {"bytes": float(measured(other, dataset).total_bytes)}

        return int(self._cache.get("bytes", facts, measure)["bytes"])

    def _shallow_seconds(self, levels: Sequence[str]) -> float:
        """A row through the first stages: its share of the whole backbone's time, which was measured."""
        extraction = self._extraction
        stage = max(extraction.estimate.plan.pyramid[level].stage for level in levels)
        facts = {
            "backbone": extraction.card.identity(weights_sha256="", precision=extraction.precision),
            "stage": stage,
            "bin": [self._bin.height_px, self._bin.width_px],
            "device": str(extraction.device),
        }
        figures = self._cache.get("first stages", facts, partial(self._measure_share, stage))
        return figures["share"] * self._speed.forward_seconds

    def _measure_share(self, stage: int) -> Figures:
        """Of one pass of an image, so that what else the machine does is in both parts alike.

        A backbone that is no SwinV2 is taken for all of itself: its stages have no common end to look at.
        """
        extraction, b, shares = self._extraction, self._bin, []
        backbone = FrozenBackbone(
            extraction.card,
            Weights(build_trunk(extraction.card).state_dict(), sha256="untrained"),
            device=extraction.device,
            precision=extraction.precision,
            compiled=False,  # what is recorded on a GPU cannot be looked into
        )
        if not isinstance(backbone.network, FoldedSwin):
            return {"share": 1.0}
        noise = np.random.default_rng(0).integers(0, 256, (1, b.height_px, b.width_px, 3), dtype=np.uint8)
        pixels, sizes, ends = torch.from_numpy(noise), torch.tensor([noise.shape[1:3]]), []
        last = backbone.network.steps[backbone.network.ends.index(stage)]
        last.register_forward_hook(lambda *_: ends.append(_now(extraction.device)))
        for _ in range(1 + PASSES):  # the first finds memory and kernels
            began = _now(extraction.device)
            backbone(pixels, sizes)
            shares.append((ends[-1] - began) / (_now(extraction.device) - began))
        return {"share": float(np.median(shares[1:]))}

    def unpacking_seconds(self) -> float:
        """A row's stored pixels, from the zstd frame to RGB, with all processors at work."""
        b, workers = self._bin, self._extraction.workers

        def measure() -> Figures:
            ramp = np.linspace(0, 255, b.height_px * b.width_px * 3).reshape(b.height_px, b.width_px, 3)
            noisy = (ramp + np.random.default_rng(0).normal(0, 6, ramp.shape)).clip(0, 255).astype(np.uint8)
            frame, out = encode_frame(differences(noisy)), np.empty(noisy.nbytes, np.uint8)

            def unpack() -> None:
                decode_frame(frame, out, "made pixels")
                undo_differences(out.reshape(noisy.shape))

            return {"seconds": _mean_seconds(unpack) / workers}

        facts = {"bin": [b.height_px, b.width_px], "workers": workers}
        return self._cache.get("pixels", facts, measure)["seconds"]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _mean_seconds(work: Callable[[], object]) -> float:
    """After a first time, which may be slower."""
    work()
    began, done = time.perf_counter(), 0
    while done < 2 or time.perf_counter() - began < MEASURED_S / 4:
        work()
        done += 1
    return (time.perf_counter() - began) / done


def with_all_levels(extraction: Extraction) -> Extraction:
    """The extraction of p2..p5 where the one planned leaves the first levels out."""
    plan = extraction.estimate.plan
    if not lacks_first_levels(plan.pyramid):
        return extraction
    first = min(level.stage for level in plan.pyramid)
    card = backbone_card(extraction.card.model, extraction.card.args)
    missing = [level for level in card.pyramid if level.stage < first]
    if not missing or plan.frames is not None:
        return extraction
    pyramid = PyramidSpec((*missing, *plan.pyramid))
    whole = replace(plan, pyramid=pyramid, pixels=False, required_features=_without_pixels(plan))
    estimate = replace(extraction.estimate, plan=whole, total_bytes=needed_bytes(whole, extraction.dataset))
    return replace(extraction, card=replace(extraction.card, pyramid=pyramid), estimate=estimate)
