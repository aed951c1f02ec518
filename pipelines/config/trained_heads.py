"""Settings of the verbs that use a trained head: `predict` and `export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config.fields import VerbConfig, marks


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig(VerbConfig):
    """A run and new images or videos to predict."""

    run: str
    """Folder of the run, or a file that `export` wrote."""
    checkpoint: str = "last"
    """Checkpoint of the run: last, best (the best validation score) or the number of a step."""
    input: str
    """An image or a video, whichever the run was trained on, or a folder of them."""
    out: str | None = None
    """Folder for the pictures and JSON files. Default: <run>/predictions."""
    max_failed: int | None = field(default=None, metadata=marks(least=0))
    """Maximum number of files that cannot be predicted; with more, or where no file can, the exit code is 1.
    All others are predicted all the same. Default: 1 % of the files but at least 10."""
    boxes: str | None = None
    """Where a run of poses looks for persons: a file of boxes in COCO's results format, with image_id or
    file_name, or the folder of a trained detection run. Default: one person who fills the picture."""
    weights: str | None = None
    """Weights of the backbone. Default: those recorded in the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig(VerbConfig):
    """A run and the file to write its head to; or a store and the folder to write its rows to."""

    run: str = ""
    """Folder of the run; needed by every format but webdataset."""
    store: str | None = None
    """Folder or URL of the store, of the format webdataset."""
    out: str
    """File to write, such as shared/head.safetensors; config.json and README.md are written beside it. Of
    webdataset a new folder."""
    format: Literal["safetensors", "pt2", "onnx", "webdataset"] = "safetensors"
    """safetensors: the head's weights, with all that builds it again in the header. pt2: a program of
    torch.export. onnx: for ONNX Runtime and others (extra `export`). Both are float32, of tensors.
    webdataset: the rows of a store as tar files."""
    checkpoint: str = "last"
    """Checkpoint of the run: last, best (the best validation score) or the number of a step."""
    part: Literal["run", "head"] | None = None
    """What pt2 and onnx hold: run (backbone and head) or head, which reads its levels. Default: run."""
    size: str | None = None
    """Size of the views that pt2 and onnx take, in pixels: the side of a square, or HEIGHTxWIDTH such as
    512x1024. Default: that of the run's test views of a square image."""
    batch_size: int | None = field(default=None, metadata=marks(least=1))
    """Images that a detection head in pt2 or onnx takes at a time; others take any number. Default: 1."""
    weights: str | None = None
    """Weights of the backbone, for pt2 and onnx. Default: those recorded in the run."""
