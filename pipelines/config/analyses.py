"""Settings of `analyse`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config.fields import VerbConfig, marks


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalyseConfig(VerbConfig):
    """One analysis: of a store, of two stores, of a run, or of a live backbone on images of a data set."""

    kind: Literal["cka", "attention", "kernels", "pca", "neighbours", "codec"]
    """cka: similarity of levels, blocks or parts of a head. attention: distance, entropy and KL of heads.
    kernels: the same of depth-wise kernels. pca: features as colours beside their images. neighbours: the
    nearest patches of other records. codec: error of the stored encoding, by level and channel."""
    store: tuple[str, ...] = ()
    """Folder of a store; cka takes two of the same records and views (A,B)."""
    run: str | None = None
    """Folder of a run, for cka of a part of its head, read from `store` or the run's own training store."""
    part: Literal["neck", "roi", "pixel", "queries"] | None = None
    """Part of the run's head: neck (BiFPN or FPN, level by level), roi (stages of box heads), pixel (pixel
    decoder) or queries (masked decoder). Default: the first of these that the head has."""
    checkpoint: str = "last"
    """Checkpoint of the run: last, best or the number of a step."""
    runs: tuple[str, ...] = ()
    """Evaluated runs whose score codec draws against the bytes of their stores."""
    model: str | None = None
    """Live backbone: swinv2-t, ..., swinv2-nano, or timm:<id>."""
    weights: tuple[str, ...] = ("timm",)
    """Weights of the live backbone, as in extract; several are compared: cka between them, attention and
    kernels in panels with common axes."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments that override those of the model, such as --model-args.window_size 8."""
    mean: tuple[float, ...] | None = None
    """Mean of red, green and blue in 0..1 that the live backbone's input is normalised by. Default: as timm
    records it for the model."""
    std: tuple[float, ...] | None = None
    """Standard deviation that it is divided by. Default: as timm records it for the model."""
    window_rule: Literal["partition", "cover"] = "cover"
    """Rule for Swin windows at least as large as the map: cover is that of classification, see extract."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Precision of the live backbone. Default: fp16 on a GPU, fp32 on a CPU."""
    dataset: str | None = None
    """Data set of the images, or the description file of own data. Default: that of the store."""
    split: str | None = None
    """Split of the images. Default: that of the store; of a data set its test split, or where it has none the
    training split."""
    data: str | None = None
    """Folder of the data set. Default: data/<official folder name>; of own data as described."""
    crop_size: int | None = field(default=None, metadata=marks(least=32))
    """Side in pixels of the centre crop that a live backbone sees. Default: the size it was pretrained at."""
    levels: tuple[str, ...] | None = None
    """Levels to analyse. Default: all that hold maps; of neighbours the last one."""
    rows: int | None = field(default=None, metadata=marks(least=4))
    """Rows to read. Default: 512 for cka, 256 for attention, 64 for neighbours, 32 for codec, 16 for pca; cka
    and attention take fewer where they would take more than two minutes."""
    estimator: Literal["unbiased", "biased"] = "unbiased"
    """Of cka. biased is close to 1 for any two features with more values than rows."""
    batch: int | None = field(default=None, metadata=marks(least=4))
    """Rows of a Gram matrix of cka: HSIC is summed over such batches. Default: all rows, or 64 where they do
    not fit into memory."""
    pool: Literal["none", "gap"] = "none"
    """gap: cka of the mean over cells instead of all values; for maps of several sizes."""
    memory_gb: float | None = None
    """Memory that held features may take. Default: half of what is free."""
    prefix: Literal["drop", "keep"] = "drop"
    """keep: class and register tokens of a ViT stay among the keys of entropy and KL, never of distance."""
    kernel: Literal["abs", "square", "softmax"] = "abs"
    """How weights of a kernel become shares."""
    foreground: Literal["off", "on", "flip"] = "off"
    """Of pca: on fits components to the cells above Otsu's threshold of the first component alone, the others
    stay black; flip takes those below."""
    remove_position: bool = False
    """Of pca: subtract from each cell its mean over the images first."""
    query: tuple[str, ...] = ()
    """Records whose patch neighbours looks up: KEY for the middle one, KEY@ROWxCOLUMN for another, counted
    from 0. Default: the middle patches of the first six."""
    out: str | None = None
    """Folder for <kind>.json, <kind>.csv and <kind>.png. Default: analyses/<what>-<kind>, of a run
    <run>/analyses."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        if self.memory_gb is not None and self.memory_gb <= 0:
            raise ValueError(f"memory_gb {self.memory_gb:g}: expected a number above 0")
        if not self.weights:
            raise ValueError("weights: expected one or more, such as timm")
