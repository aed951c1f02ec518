"""Monocular depth: depth maps in, RMSE and relative errors of each image out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heads.contract import Head
from heads.depth.base import DepthHead
from pipelines.accuracy.record_picks import ImageOf, RecordPicks
from pipelines.accuracy.record_scores import write_record_scores
from pipelines.json_output import write_json
from pipelines.machine.devices import autocast
from pipelines.metrics.depth import NAMES, counted_pixels, depth_errors
from pipelines.metrics.depth_windows import Box, merged_views
from pipelines.tasks.contract import IMAGE_ENDINGS, Arrays, TestView, joined_features, same_shapes
from pipelines.tasks.info.depth import INFO

if TYPE_CHECKING:
    from pipelines.live.run_model import RunModel

_FIRST = ("RMSE", "d1", "AbsRel")
"""Of the headline, in its order."""
_MADE_UNITS = (100, 9000)
"""Range of made depths, in stored units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthFigures:
    """Scores of a depth head: means over images."""

    values: Mapping[str, float | None]
    """By NAMES; None where no pixel of any image counts."""
    records: int
    """Images with a pixel that counts."""
    views: str
    crop: str
    """Part of the images that is scored: none (all), eigen or garg."""
    picks: RecordPicks = dataclasses.field(default_factory=RecordPicks, compare=False)
    """RMSE of each image, and the best and worst ones."""

    def scores(self) -> Mapping[str, float | None]:
        return self.values

    def line(self) -> str:
        shown = " ".join(f"{name} {INFO.score(name).shown(self.values[name])}" for name in _FIRST)
        nothing = "" if self.records else ": no pixel has a depth that counts"
        part = "" if self.crop == "none" else f", {self.crop} crop"
        return f"{shown} ({self.views}{part}), {self.records} records{nothing}"

    def summary(self) -> Mapping[str, Any]:
        return {
            **{name.lower(): value for name, value in self.values.items()},
            "records": self.records,
            "views": self.views,
            "crop": self.crop,
        }

    def write(self, folder: Path, suffix: str, class_names: Sequence[str]) -> None:
        """records.csv: RMSE of each image, the worst first."""
        write_record_scores(
            folder / f"records{suffix}.csv", "rmse_m", self.picks.scores, higher_is_better=False
        )

    def draw_records(self, folder: Path, suffix: str, class_names: Sequence[str], image_of: ImageOf) -> None:
        """worst-records.png and best-records.png: image, truth, prediction and error."""
        # Late: drawing loads PIL, which training does not need.
        from pipelines.pictures.depth_maps import record_rows
        from pipelines.pictures.records import RecordPicture, write_records

        for name, picked in (("worst", self.picks.worst), ("best", self.picks.best)):
            pictures = [
                RecordPicture(
                    each.key,
                    f"RMSE {INFO.score('RMSE').shown(each.score)}",
                    record_rows(image_of(each.key, each.truth_YX.shape), each.truth_YX, each.predicted_YX),
                )
                for each in picked
            ]
            write_records(folder / f"{name}-records{suffix}.png", pictures)


class Depth:
    """The task; see `pipelines.tasks.contract.Task`."""

    training_targets = ("depth",)
    test_targets = ("original_depth",)
    info = INFO
    source_kind = "images"
    source_endings = IMAGE_ENDINGS

    def __init__(self, crop: str = "none") -> None:
        """Args: crop: part of the images that is scored, see pipelines/metrics/depth.py."""
        self._crop = crop

    def for_dataset(self, dataset: Mapping[str, Any]) -> Depth:
        """The task with the crop of a store's data set, by the `dataset` of its identity."""
        return Depth(str(dataset.get("task_facts", {}).get("crop", "none")))

    def head_targets(self, stored: Arrays) -> Arrays:
        return stored

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        depths = torch.randint(*_MADE_UNITS, (rows, *hw), generator=generator)
        return [{"depth": each.to(torch.uint16)} for each in depths]

    def measure(
        self, head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
    ) -> DepthFigures:
        """Scores of each image over the part of it that its views show, then their mean."""
        assert isinstance(head, DepthHead)
        facts, picks, errors = head.depth_settings, RecordPicks(higher_is_better=False), list[Tensor]()
        for view, (top, bottom, left, right), predicted_YX in record_depths(
            head, views, device=device, bf16=bf16
        ):
            stored = torch.from_numpy(np.ascontiguousarray(view.truth["original_depth"]))
            truth_YX = stored[top:bottom, left:right].to(device).float() / facts.units_per_m
            counted = counted_pixels(truth_YX, self._crop, facts.min_depth_m, facts.max_depth_m)
            errors.append(depth_errors(predicted_YX, truth_YX, counted))
            picks.add_scored(view.key, errors[-1][0], truth_YX, predicted_YX)
        picks.flush()
        known = torch.stack(errors).cpu() if errors else torch.zeros(0, len(NAMES))
        known = known[~known.isnan().any(1)]
        means = known.mean(0).tolist() if len(known) else [None] * len(NAMES)
        return DepthFigures(
            values=dict(zip(NAMES, means, strict=True)),
            records=len(known),
            views=views_name,
            crop=self._crop,
            picks=picks,
        )

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """The photograph beside its depth, and the depth map as a PNG and as numbers.

        They are `<base>.overlay.png`, `<base>.depth.png` (16 bits, in the data set's unit, 0 = no depth),
        `<base>.depth.npy` (float32, metres, NaN = no depth) and `<base>.json`.
        """
        # Late: training from a store must not load an image decoder.
        from PIL import Image

        # Late, as above.
        from pipelines.live.image_files import read_image
        from pipelines.pictures.depth_maps import overlay

        assert isinstance(model.head, DepthHead)
        rgb, units = read_image(source), model.head.depth_settings.units_per_m
        depth = model([rgb])[0].to("cpu").numpy()
        overlay(rgb, depth).save(f"{base}.overlay.png")
        Image.fromarray(stored_units(depth, units)).save(f"{base}.depth.png")
        np.save(f"{base}.depth.npy", depth)
        low, middle, high = np.nanpercentile(depth, (0, 50, 100)).tolist()
        summary = {
            "image": str(source),
            "height": rgb.shape[0],
            "width": rgb.shape[1],
            "least_m": low,
            "median_m": middle,
            "largest_m": high,
            "png_units_per_m": units,
        }
        write_json(Path(f"{base}.json"), summary)
        return summary

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        return (
            f"{summary['least_m']:.2f} to {summary['largest_m']:.2f} m, half of it within "
            f"{summary['median_m']:.2f} m"
        )


def stored_units(depth: np.ndarray, units_per_m: float) -> np.ndarray:
    """uint16 depth of metres, 0 where it is not known; what is known is 1 or more.

    >>> stored_units(np.array([[1.5, np.nan, 1e-6]]), 1000.0).tolist()
    [[1500, 0, 1]]
    """
    known = np.isfinite(depth)
    units = np.clip(np.rint(np.where(known, depth, 0.0) * units_per_m), 1, 0xFFFF)
    return np.where(known, units, 0).astype(np.uint16)


def record_depths(
    head: DepthHead, views: Iterable[TestView], *, device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Box, Tensor]]:
    """The first view of each record, the part of the image that its views show, and the depth there in
    metres, float32, in pixels of the original image."""
    for _, group in groupby(_predicted(head, views, device, bf16), key=lambda each: each[0].key):
        shown = list(group)
        view = shown[0][0]
        box, depth_YX = merged_views(((each.params, depth) for each, depth in shown), view.original_hw)
        yield view, box, depth_YX


def _predicted(
    head: DepthHead, views: Iterable[TestView], device: torch.device, bf16: bool
) -> Iterator[tuple[TestView, Tensor]]:
    """Each view with its depth in its valid pixels; views of one shape go through the head together."""
    for together in same_shapes(views):
        sizes = [view.valid_hw for view in together]
        with torch.no_grad(), autocast(device, bf16):
            found = head.predict(joined_features(together), sizes, sizes)
        yield from zip(together, found, strict=True)


TASK = Depth()
