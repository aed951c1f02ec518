"""Settings of the verbs that measure: `evaluate`, `probe` and `report`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config.fields import VerbConfig, marks


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(VerbConfig):
    """A run and the test views to evaluate it on."""

    run: str
    """Folder of the run."""
    checkpoint: str = "last"
    """Checkpoint of the run: last, best (the best validation score) or the number of a step."""
    store: str | None = None
    """Test store. Default: the only complete one with the run's data set, weights and levels."""
    stores: str | None = None
    """Folder that holds the stores. Default: the folder recorded in the run."""
    live: bool = False
    """Run the backbone on the test images instead of reading a store."""
    no_truth: bool = False
    """Write the official results file instead of scores: for splits whose truth is not published, such as
    test-dev2017."""
    boxes: str | None = None
    """File of person boxes that `live` views of poses are of, in COCO's results format. Default:
    the annotated boxes; a store is of the boxes it was extracted with."""
    data: str | None = None
    """Folder of the data set, for `live`, `pixels source` and pictures of the best and worst records.
    Default: the folder recorded in the run, or data/<official name>; for pictures also that of the store's
    log."""
    pixels: Literal["stored", "source"] | None = None
    """Where a test store's missing shallow levels are recomputed from, as in train-head. Default: stored
    pixels, if the store has them."""
    split: str | None = None
    """Split to evaluate. Default: the data set's test split."""
    views: Literal["single", "ms-flip", "slide", "4x3", "single-ends", "4x3-ends"] | None = None
    """Test views, of a store or `live`. Default: single; of a store, the views it holds."""
    short_side: int | None = None
    """Short side of a test view at ratio 1 in pixels. Default: that of the run's training views."""
    slide_stride: int | None = None
    """Step of the windows of `live` views slide in pixels. Default: two thirds of the crop."""
    weights: str | None = None
    """Weights of the backbone, for `live` and recomputed levels. Default: those recorded in the run."""
    precision: Literal["fp32", "bf16"] | None = None
    """Precision of the head; bf16 uses autocast. Default: bf16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""
    threads: int | None = None
    """Threads that read rows. Default: 2, or 1 on a single core."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig(VerbConfig):
    """A classification of stored features without training a head."""

    store: str | None = None
    """Store of the training split. Default: the only complete one that fits; of several, that of the views of
    tests (--views single)."""
    val_store: str | None = None
    """Store of the split to measure on. Default: the only complete test store that fits."""
    method: Literal["knn", "logreg"] = "knn"
    """knn: nearest neighbours by cosine; logreg: logistic regression."""
    stores: str = "features"
    """Folder that holds the stores."""
    dataset: str | None = None
    """Data set of the stores. Default: any."""
    model: str | None = None
    """Backbone of the stores. Default: any."""
    weights: str | None = None
    """Weights of the stores' backbone, as passed to extract. Default: any."""
    feature: Literal["auto", "cls", "avg", "cls+avg", "pooled", "map"] = "auto"
    """What is classified: class token, mean of the last map, both, the model's own pooling, or the mean of
    the last map that is stored; auto: the first of cls, avg, pooled and map that the store holds."""
    blocks: int = field(default=1, metadata=marks(least=1))
    """Class tokens of so many last blocks are concatenated."""
    k: tuple[int, ...] = (5, 10, 20, 100, 200)
    """Neighbours of knn; of several the result is that of 20, or of the number nearest to it."""
    temperature: float = 0.07
    """Of knn's votes exp(similarity / temperature)."""
    c_grid: Literal["nine", "dinov2"] = "nine"
    """Values of C of logreg, chosen by a held-out tenth of the training rows: nine, or DINOv2's 45."""
    c: float | None = None
    """One C of logreg, without a choice."""
    engine: Literal["auto", "sklearn", "torch"] = "auto"
    """Of logreg: scikit-learn, or the same objective on the device. Default: scikit-learn up to 50 million
    features."""
    subset: str | None = None
    """Part of the training records: a share (1%), so many of each class (5shot, 5shot-seed1), or a file with
    one key per line. Default: all records."""
    out: str | None = None
    """Folder for probe.json and the tables. Default: runs/<training store>-<method>."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k {','.join(map(str, self.k))}: expected numbers of 1 or more")
        for name in ("temperature", "c"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} {value:g}: expected a number above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig(VerbConfig):
    """Runs to compare."""

    run: tuple[str, ...] = ()
    """Folders of runs, or folders that contain runs; the flag itself may be left out. Runs that differ only
    in their seed form one row: mean and standard deviation."""
    out: str | None = None
    """File to write, by its ending: .html, a page with tables, curves, classes and pictures in one file;
    .csv, with a plot of score over trainable parameters beside it as .png; .json. Default: the table is
    printed only."""
    pretraining: tuple[str, ...] = ()
    """Pretraining of weights that the runs do not name, as the paper calls it: SUP-1K, SUP-22K, EsViT-1K,
    SimMIM-1K, iCAR-Laion, iCAR-Laion-22K, ext22K or other. NAME is for every run with unknown weights,
    DIGEST=NAME or RUN=NAME for one. Default: only published weights are recognised."""
