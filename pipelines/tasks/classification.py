"""Image classification: labels in, top-1, top-5 and mean per-class accuracy out.

Letters in tensor names: N views, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heads.contract import Head
from pipelines.accuracy.class_figures import ClassFigures
from pipelines.accuracy.named_records import TOP, name_record
from pipelines.machine.devices import autocast
from pipelines.tasks.contract import IMAGE_ENDINGS, Arrays, TestView
from pipelines.tasks.info.classification import INFO

if TYPE_CHECKING:
    from pipelines.live.run_model import RunModel

AT_ONCE = 256
"""Views that go through a head together: pooled features are a few kilobytes."""


class Classification:
    """The task; see `pipelines.tasks.contract.Task`."""

    training_targets = ("label",)
    test_targets = ("original_label",)
    info = INFO
    source_kind = "images"
    source_endings = IMAGE_ENDINGS

    def head_targets(self, stored: Arrays) -> Arrays:
        return {"label": np.asarray(stored["label"], np.int64).reshape(())}

    def made_targets(
        self, rows: int, hw: tuple[int, int], num_classes: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        return [{"label": label} for label in torch.randint(0, num_classes, (rows,), generator=generator)]

    def measure(
        self, head: Head, views: Iterable[TestView], *, views_name: str, device: torch.device, bf16: bool
    ) -> ClassFigures:
        """Probabilities are the mean over a record's views."""
        predicted = _predicted(head, views, device, bf16)
        named = []
        for key, of_record in groupby(predicted, key=lambda view: view[0]):
            parts = list(of_record)
            probabilities_K = torch.stack([probabilities for _, _, probabilities in parts]).mean(0)
            named.append(name_record(key, parts[0][1], probabilities_K))
        return ClassFigures(named=tuple(named), num_classes=head.num_classes, views=views_name)

    def write_prediction(self, model: RunModel, source: Path, base: Path) -> dict[str, Any]:
        """The most likely classes as `<base>.json`, and beside the photograph as `<base>.overlay.png`."""
        from pipelines.live.predict_class import predict_class  # late: training must not need a decoder

        return predict_class(model, source, base, TOP)

    def describe_prediction(self, summary: Mapping[str, Any]) -> str:
        return ", ".join(f"{100 * item['probability']:.0f} % {item['name']}" for item in summary["classes"])


def _predicted(
    head: Head, views: Iterable[TestView], device: torch.device, bf16: bool
) -> Iterator[tuple[str, int, Tensor]]:
    """(key, label, class probabilities float32 (K,) on the CPU) of each view, in order."""
    for together in _batches(views):
        features = {
            name: torch.cat([view.features[name] for view in together]) for name in together[0].features
        }
        sizes = [view.valid_hw for view in together]
        with torch.no_grad(), autocast(device, bf16):
            found = head.predict(features, sizes, [view.original_hw for view in together])
        for view, probabilities_K in zip(together, torch.stack(list(found)).cpu(), strict=True):
            yield view.key, int(np.asarray(view.truth["original_label"]).reshape(())), probabilities_K


def _batches(views: Iterable[TestView]) -> Iterator[list[TestView]]:
    """Views of one size that follow each other, at most AT_ONCE."""
    for _, of_size in groupby(views, key=lambda view: [x.shape for x in view.features.values()]):
        together: list[TestView] = []
        for view in of_size:
            together.append(view)
            if len(together) == AT_ONCE:
                yield together
                together = []
        if together:
            yield together


TASK = Classification()
