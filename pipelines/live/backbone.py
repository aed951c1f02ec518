"""The frozen backbone of a run, for `predict`, `evaluate --live` and `train-head --online`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extract.backbones.loading import FrozenBackbone, card_of_identity, load_backbone
from extract.backbones.weights import FORMER_BUNDLED
from extract.datasets import dataset_module, view_recipe
from extract.views.fitted_views import fitted_to
from extract.views.recipes import ViewRecipe
from extract.views.view import MULTIPLE_PX
from pipelines.runs.run_folder import RunRecord
from pipelines.runs.same_source import without_precision
from pipelines.runs.view_scale import is_sized_by_crop
from stores.errors import IdentityError
from stores.format.canonical_json import diff_identity


def load_run_backbone(record: RunRecord, weights: str | None, device: torch.device) -> FrozenBackbone:
    """The backbone a run's features came from, giving the levels its head reads.

    Args:
        weights: what `--weights` was; None: what the run recorded, else timm.

    Raises:
        WeightsUnavailable: they cannot be had.
        IdentityError: they are others than the run's, or today's backbone code gives other numbers.
        BackboneTooLarge: the device's memory does not hold it.
    """
    source = weights or record.weights or "timm"
    return load_same_backbone(record.identity["backbone"], record.levels, source, device)


def load_same_backbone(
    wanted: Mapping[str, Any],
    levels: Sequence[str],
    source: str,
    device: torch.device,
    *,
    precision: str | None = None,
) -> FrozenBackbone:
    """Some levels of the backbone named by a store's identity; no stage beyond them is built.

    Args:
        wanted: the identity's `backbone`.
        source: what `--weights` was.
        precision: fp32, fp16 or bf16; None: the device's default.

    Raises as `load_run_backbone`.
    """
    card = card_of_identity(wanted, levels)
    if source == "timm" and wanted["weights_sha256"] in FORMER_BUNDLED:
        source = str(FORMER_BUNDLED[wanted["weights_sha256"]])
    backbone = load_backbone(card, source, device=device, precision=precision)
    for field, theirs, ours in diff_identity(
        without_precision(wanted), without_precision(backbone.identity())
    ):
        raise IdentityError(
            f"backbone.{field}",
            theirs,
            ours,
            f"--weights {source} are not those of the run's store; pass those it was extracted with",
        )
    return backbone


def live_features(
    backbone: FrozenBackbone, pixels: npt.NDArray[np.uint8], valid_hw: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    """Of uint8 (N, [T,] H, W, 3): level -> float32 (N, C, [T,] y, x), channels last as from a store, free of
    inference mode."""
    frames = pixels.shape[1:-3]  # of a video; each goes through the backbone by itself
    images_NHWC = torch.from_numpy(pixels.reshape(-1, *pixels.shape[-3:]))
    sizes = torch.tensor(list(valid_hw)).repeat_interleave(max(1, *frames, 1), dim=0)
    levels = backbone(images_NHWC, sizes)
    return {
        name: x_NyxC.float()
        .clone(memory_format=torch.contiguous_format)
        .unflatten(0, (len(pixels), *frames))
        .movedim(-1, 1)
        for name, x_NyxC in levels.items()
    }


def run_test_recipe(
    record: RunRecord,
    views: str | None = None,
    short_side: int | None = None,
    *,
    slide_stride: int | None = None,
) -> ViewRecipe:
    """The default test views of a run: the paper's, or those of its training scale at ratio 1 where that is
    not the paper's."""
    name = views or dataset_module(record.identity["dataset"]).TEST_VIEWS[0]
    trained = record.identity["views"]
    recipe = view_recipe(
        record.identity["dataset"], name, slide_stride=slide_stride, **_size(record, short_side)
    )
    if trained.keys().isdisjoint(("multiple_px", "interpolation")):
        return recipe
    return fitted_to(
        *(recipe, trained.get("multiple_px", MULTIPLE_PX), record.model),
        interpolation=trained.get("interpolation"),
    )


def _size(record: RunRecord, short_side: int | None) -> dict[str, Any]:
    """Crop and short side of the test views, for `view_recipe`."""
    source = record.identity["dataset"]
    scale_px = record.identity["views"].get("scale_px")
    trained = dataset_module(source).TRAINING_VIEWS[0]
    papers_px = view_recipe(source, trained).identity().get("scale_px")
    side_px = int(scale_px[1]) if short_side is None and scale_px != papers_px else short_side
    if not is_sized_by_crop(record.identity["views"]):
        return {"short_side": side_px}
    crop = record.identity["views"].get("crop_px")
    return {"crop_size": side_px} if crop is None else {"crop_size": crop, "short_side": short_side}
