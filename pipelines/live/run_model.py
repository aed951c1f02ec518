"""A trained run as one module: preprocessing, frozen backbone and head."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extract.backbones.loading import FrozenBackbone
from extract.datasets import Record
from extract.views.recipes import ViewRecipe
from extract.views.view import VIEW_PARAMS
from heads.contract import Head
from heads.depth.base import DepthHead
from heads.segmentation.base import SegmentationHead
from heads.segmentation.row_bands import LabelMap
from pipelines.errors import UsageError
from pipelines.live.backbone import live_features, load_run_backbone, run_test_recipe
from pipelines.live.image_input import Rgb, rgb_images
from pipelines.machine.devices import choose_device
from pipelines.machine.memory_format import channels_last
from pipelines.runs.checkpoint_files import LAST
from pipelines.runs.head_file import is_head_file, read_head_file
from pipelines.runs.run_folder import read_run
from pipelines.runs.trained_head import load_head
from stores.reading.html_table import html_table


class RunModel(nn.Module):
    """Images in, the head's predictions at the images' own size out. Needs no store and no Lightning."""

    def __init__(
        self, backbone: FrozenBackbone, head: Head, recipe: ViewRecipe, class_names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.recipe = recipe
        """Test views; the single one of an image is what the backbone sees."""
        self.class_names = class_names
        self.eval()

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}: {value}" for name, value in self._facts().items())
        return f"RunModel({facts})"

    def _repr_html_(self) -> str:
        return html_table("Trained run", self._facts())

    def _facts(self) -> dict[str, object]:
        trained = sum(parameter.numel() for parameter in self.head.parameters())
        shown = ", ".join(self.class_names[:4]) + (", ..." if len(self.class_names) > 4 else "")
        return {
            "backbone": f"{self.backbone.card.model} ({', '.join(self.backbone.pyramid.names)}), frozen",
            "head": f"{type(self.head).__name__}, {trained / 1e6:.2f} million parameters",
            "task": self.head.task,
            **({"classes": f"{len(self.class_names)} ({shown})"} if self.class_names else {}),
            "device": self.backbone.device,
        }

    @torch.inference_mode()
    def forward(self, images: Iterable[Any]) -> list[Any]:
        """The head's prediction of each image, in its own pixels; see the head's `predict`.

        Of segmentation heads: class scores, float32 (classes, H, W) on the model's device, probabilities from
        heads that end in a softmax. Of depth heads: metres, float32 (H, W), NaN outside of the part of the
        image that the data set's test views show.

        Args:
            images: uint8 RGB (H, W, 3) of any sizes, or what is unambiguously the same: (3, H, W), grey,
                opaque RGBA, floating point in 0..1; arrays, CPU tensors or PIL images. See `rgb_images`.

        Raises ImageError (a ValueError) for other images, before any is predicted, and UsageError where the
        run is of videos.
        """
        if self.recipe.frames is not None:
            raise UsageError(
                "the run's head classifies videos and was called with images; `python -m pipelines predict "
                "--run ... --input FILE` reads videos"
            )
        return [self._predict(rgb) for rgb in list(rgb_images(images))]

    @torch.inference_mode()
    def predict_labels(self, image: Any) -> LabelMap:
        """The class of each pixel of one image, by a segmentation head.

        Equals the largest of the class scores of `forward`, which would take classes x pixels x 4 bytes: 60
        GB for 150 classes of 100 megapixels. Beside the labels it holds the scores of some rows.

        Raises ImageError as `forward`, UsageError for a head of another task.
        """
        if not isinstance(self.head, SegmentationHead):
            raise UsageError(f"the run's head is one of {self.head.task}: it predicts no label map")
        (rgb,) = rgb_images([image])
        features, valid_hw = self._features(rgb, self._view(rgb))
        (labels,) = self.head.predict_labels(features, [valid_hw], [_hw(rgb)])
        return labels

    def _predict(self, rgb: Rgb) -> Any:
        view = self._view(rgb)
        features, valid_hw = self._features(rgb, view)
        if not isinstance(self.head, DepthHead) or view.valid_hw == view.resized_hw:
            return self.head.predict(features, [valid_hw], [_hw(rgb)])[0]
        # Late: only depth is predicted of a part of an image, where a data set scores no more of it.
        from pipelines.metrics.depth_windows import merged_views

        found = self.head.predict(features, [valid_hw], [valid_hw])[0]
        params = dict(zip(VIEW_PARAMS, view.to_params().tolist(), strict=True))
        (top, bottom, left, right), part_YX = merged_views([(params, found)], _hw(rgb))
        whole_YX = part_YX.new_full(_hw(rgb), torch.nan)
        whole_YX[top:bottom, left:right] = part_YX
        return whole_YX

    def _view(self, rgb: Rgb) -> Any:
        # A test view depends on the size alone: no data set and no key have a part in it.
        return self.recipe.view("", Record("", 0, _hw(rgb)), 0, 0)

    def _features(self, rgb: Rgb, view: Any) -> tuple[dict[str, Tensor], tuple[int, int]]:
        return live_features(self.backbone, view.apply_image(rgb)[None], [view.valid_hw]), view.valid_hw


def _hw(rgb: Rgb) -> tuple[int, int]:
    return rgb.shape[0], rgb.shape[1]


def load_run(
    run: str | Path, *, weights: str | None = None, device: str = "cpu", checkpoint: str = LAST
) -> RunModel:
    """A trained run as a plain torch module, to use on new images.

    Called with a sequence of uint8 RGB images (H, W, 3) it returns the prediction of each; of segmentation
    heads float32 (classes, H, W): probabilities from heads that end in a softmax, the largest is the class.
    It holds preprocessing, the frozen backbone and the head, and needs no store. See `RunModel.forward`.

    Args:
        run: folder of the run, or a file that `export --format safetensors` wrote.
        weights: of the backbone; None: those recorded in the run.
        device: auto, cpu, cuda or cuda:<number>.
        checkpoint: last, best (the best validation score) or the number of a step.

    Raises:
        UsageError: no run, or none with a checkpoint. WeightsUnavailable: no such weights.
        IdentityError: other weights than the run's.
        DamagedCheckpoint: the checkpoint is not as it was written; names an intact one.
    """
    folder, chosen = Path(run), choose_device(device)
    if is_head_file(folder):
        if checkpoint != LAST:
            raise UsageError(f"{folder} holds one checkpoint, asked for {checkpoint!r}: export that one")
        shared = read_head_file(folder, chosen)
        record, head = shared.record, channels_last(shared.head)
    else:
        record = read_run(folder)
        head, _ = load_head(folder, chosen, checkpoint)
    backbone = load_run_backbone(record, weights, chosen)
    return RunModel(backbone, head, run_test_recipe(record), record.class_names)
