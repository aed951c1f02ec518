"""Settings of `train-head`, and of several heads trained side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config.fields import VerbConfig, marks

LOGGERS = ("tensorboard", "wandb")
"""Also the folders in a run that they write."""


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads a nested default by vars()
class OptimizerConfig:
    """How the head's parameters are changed."""

    name: Literal["adamw", "sgd", "lars"] = field(default="adamw", metadata=marks(fixed=True))
    """adamw; sgd: with momentum; lars: sgd whose rate follows each matrix's norm, for batches of
    thousands."""
    lr: float = 2e-3
    """Peak learning rate, for `batch_size` rows per step."""
    weight_decay: float = field(default=0.05, metadata=marks(fixed=True))
    """Decoupled weight decay. Norm layers (as in mmseg's Swin) and embeddings (as in Mask2Former) have
    none."""
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=marks(fixed=True))
    """AdamW's decay rates of the first and second moments."""
    momentum: float = field(default=0.9, metadata=marks(fixed=True))
    """Of sgd and lars."""
    trust: float = field(default=1e-3, metadata=marks(fixed=True))
    """LARS's coefficient: the rate of a matrix is this times its norm over its gradient's."""
    clip_norm: float | None = None
    """Maximum norm of all gradients together. Default: no clipping."""


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads a nested default by vars()
class ScheduleConfig:
    """The learning rate over `max_steps`."""

    shape: Literal["poly", "cosine", "step", "constant", "updown"] = "poly"
    """Shape of the schedule after the warm-up; poly with power 1 is linear. updown rises from `end` to the
    peak and falls back, without a warm-up."""
    power: float = 1.0
    """Exponent of poly and updown."""
    rise_share: float = 0.5
    """For updown: fraction of the run in which the rate rises, and as long falls; then it is `end`."""
    milestones: tuple[float, ...] = ()
    """For step: fractions of the run after which the learning rate drops, such as 0.875 for epoch 63 of
    72."""
    gamma: float = 0.1
    """For step: factor applied to the learning rate at each milestone."""
    warmup_steps: int = 1500
    """Steps of linear warm-up, at most 10 % of `max_steps`."""
    warmup_share: float | None = None
    """Warm-up as a fraction of the run, such as 0.0833333 for 2.5 of 30 epochs. Default: `warmup_steps`
    applies."""
    warmup_start: float = 1e-6
    """Learning rate of the first warm-up step, as a fraction of the peak."""
    end: float = 0.0
    """Learning rate at `max_steps`, as a fraction of the peak."""
    decay_from: Literal["start", "warmup"] = "start"
    """Where the shape begins: at step 0, times the warm-up's factor (mmcv), or where the warm-up ends
    (MAE)."""
    stairs: int | None = None
    """The rate changes so many times, at equal steps, such as once in each of 100 epochs (DINO). Default: in
    every step."""

    def __post_init__(self) -> None:
        if self.warmup_share is not None and not 0 <= self.warmup_share <= 1:
            raise ValueError(f"schedule.warmup_share {self.warmup_share}: expected a fraction from 0 to 1")
        if not 0 < self.rise_share <= 1:
            raise ValueError(f"schedule.rise_share {self.rise_share}: expected a fraction above 0, up to 1")
        if self.stairs is not None and self.stairs < 1:
            raise ValueError(f"schedule.stairs {self.stairs}: expected 1 or more")
        shares = list(self.milestones)
        if shares != sorted(shares) or not all(0 < share < 1 for share in shares):
            raise ValueError(f"schedule.milestones {shares}: expected increasing fractions between 0 and 1")
        if self.shape == "step" and not shares:
            raise ValueError(
                "schedule.shape step needs schedule.milestones: the fractions of the run where the rate drops"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(VerbConfig):
    """Training of a head."""

    head: str = field(metadata=marks(fixed=True, one_report_row=True))
    """Name of the head for the data set's task, such as linear, fpn or bifpn5. Several heads, such as
    fpn,bifpn5, train side by side on the same batches, each exactly as it would alone; so do several learning
    rates (--lr 1e-3,2e-3)."""
    head_settings: dict[str, Any] = field(
        default_factory=dict, metadata=marks(fixed=True, one_report_row=True)
    )
    """Settings that override those of the named head, such as --head-settings.width 64."""
    dataset: str | None = field(default=None, metadata=marks(one_stream=True))
    """Data set of the store. Default: any."""
    model: str | None = field(default=None, metadata=marks(one_stream=True))
    """Backbone of the store. Default: any."""
    split: str | None = field(default=None, metadata=marks(one_stream=True))
    """Split of the store. Default: the training split."""
    weights: str | None = field(default=None, metadata=marks(one_stream=True))
    """Weights of the store's backbone, as passed to extract. Default: any; with `online`, timm."""
    levels: tuple[str, ...] | None = field(default=None, metadata=marks(fixed=True, one_report_row=True))
    """Levels available to the head. Default: those it needs."""
    store: tuple[str, ...] | None = None
    """Store folders; several hold further views of the same records. Default: the only complete store that
    fits."""
    stores: str = field(default="features", metadata=marks(one_stream=True))
    """Folder that holds the stores."""
    val_store: str | None = None
    """Test store for validation during training. Default: the only complete one that fits, if any."""
    recipe: str | None = field(default=None, metadata=marks(fixed=True))
    """Training recipe: a name from pipelines/recipes or a path. Default: the recipe shipped for this data set
    and head."""
    run: str | None = None
    """Folder of the run. Default: runs/<store>-<head>-<n>."""
    resume: bool = False
    """Resume the run in `run` exactly from its last checkpoint, with its own configuration unless flags
    change it."""
    take_over: bool = False
    """Write the run even if another process holds its run.lock, which then stops before its next write."""
    online: bool = field(default=False, metadata=marks(fixed=True, one_stream=True))
    """Train on the live backbone with new views every epoch, without a store; requires `dataset` and
    `model`."""
    data: str | None = field(default=None, metadata=marks(one_stream=True))
    """Folder of the data set, for `online` and `pixels source`. Default: data/<official folder name>."""
    pixels: Literal["stored", "source"] | None = field(default=None, metadata=marks(one_stream=True))
    """Where shallow levels missing from the store are recomputed from: pixels stored in the store, or the
    source images. Default: stored pixels, if the store has them."""
    crop_size: int | str | None = field(default=None, metadata=marks(one_stream=True))
    """Size of a training view in pixels, for `online`: the side of a square, or HEIGHTxWIDTH. Default: as in
    the view recipe."""
    stuff: Literal["stuffthingmaps", "panoptic"] | None = field(default=None, metadata=marks(one_stream=True))
    """Stuff maps of COCO, for `online` heads with a semantic branch. Default: none."""
    model_args: dict[str, Any] = field(default_factory=dict, metadata=marks(one_stream=True))
    """Constructor arguments of the backbone, for `online`."""
    mean: tuple[float, ...] | None = field(default=None, metadata=marks(one_stream=True))
    """Mean of red, green and blue in 0..1 that the backbone's input is normalised by, such as
    0.485,0.456,0.406, for `online`. Default: as timm records it for the model."""
    std: tuple[float, ...] | None = field(default=None, metadata=marks(one_stream=True))
    """Standard deviation that it is divided by, for `online`. Default: as timm records it for the model."""
    interpolation: Literal["bilinear", "bicubic"] | None = field(
        default=None, metadata=marks(one_stream=True)
    )
    """How images are resized, for `online`. Default: as in extract."""
    pretrained_tag: str | None = field(default=None, metadata=marks(one_stream=True))
    """Which published weights of timm:<id> a weights file is like, such as mae or augreg_in21k: mean,
    deviation and size are theirs, for `online`. Same as timm:<id>.<tag>."""
    pos_resample: Literal["timm", "dinov2"] | None = field(default=None, metadata=marks(one_stream=True))
    """How a ViT's position embeddings follow the image size, for `online`. timm: bicubic with antialias;
    dinov2: without, as DINOv2 and transformers. Default: timm."""
    window_rule: Literal["partition", "cover"] | None = field(default=None, metadata=marks(one_stream=True))
    """Window rule of a Swin backbone, for `online`. Default: as in extract."""
    subset: str | None = field(default=None, metadata=marks(fixed=True, one_stream=True, one_report_row=True))
    """Part of the records: a share (1%), so many of each class (5shot, 5shot-seed1), a fold of COCO
    (coco-1pct-fold1), or a file with one key per line. Several shares, such as
    10%,20%,100%, are trained on one after another, each in <run>/<share>. Default: all records."""
    data_fraction: float | None = None
    """Same as `subset`, as a number: 0.1 is 10%."""
    max_steps: int = field(default=160_000, metadata=marks(least=1, one_report_row=True))
    """Length of the run in optimiser steps. If both `max_steps` and `epochs` are given, the later one
    applies."""
    epochs: float | None = field(default=None, metadata=marks(one_report_row=True))
    """Length of the run in epochs, converted to `max_steps` at the start. Default: `max_steps` applies."""
    repeat: int = field(default=1, metadata=marks(least=1, one_report_row=True))
    """Times each record is visited per epoch, as in mmdet's RepeatDataset; each visit uses its next view."""
    batch_size: int = field(
        default=16, metadata=marks(fixed=True, least=1, one_stream=True, one_report_row=True)
    )
    """Rows per step, over all processes started by torchrun."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig, metadata=marks(one_report_row=True))
    """Optimizer settings."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata=marks(one_report_row=True))
    """Learning-rate schedule."""
    seed: int = field(default=0, metadata=marks(fixed=True, one_stream=True))
    """Seed of the head's initial weights, the row order and dropout."""
    seeds: int = field(default=1, metadata=marks(one_stream=True))
    """Number of runs with consecutive seeds starting at `seed`, one after another, each in <run>/seed<n>;
    `report` shows their mean."""
    precision: Literal["fp32", "bf16"] | None = field(default=None, metadata=marks(one_report_row=True))
    """Precision of the head; bf16 uses autocast. Default: bf16 on a GPU, fp32 on a CPU."""
    device: str = field(default="auto", metadata=marks(one_stream=True))
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""
    devices: str | None = field(default=None, metadata=marks(one_stream=True))
    """Devices among which several heads are shared, a process each: cuda:0,cuda:1, all (GPUs that are
    visible) or cpu:2, two processes on the CPU. Default: all heads side by side on `device`."""
    allow_partial: bool = field(default=False, metadata=marks(one_stream=True))
    """Train from what is finished of a store that is still being extracted, as it is now; the run records
    how many rows that is, and a resumed run keeps to them."""
    threads: int | None = field(default=None, metadata=marks(one_stream=True))
    """Threads that read rows. Default: 2, or 1 on a single core."""
    verify: Literal["always", "first-epoch", "off"] = field(default="always", metadata=marks(one_stream=True))
    """When chunk checksums are compared; with any other value than always, corrupt bytes can go unnoticed."""
    log_every: int = field(default=50, metadata=marks(least=0))
    """Steps between log lines."""
    val_every: int | None = field(default=None, metadata=marks(least=0))
    """Steps between validations; 0: only at the end. Default: a tenth of `max_steps`."""
    checkpoint_every: int | None = field(default=None, metadata=marks(least=1))
    """Steps between checkpoints. Default: a tenth of `max_steps`."""
    keep_checkpoints: int = field(default=3, metadata=marks(least=0))
    """Number of most recent checkpoints to keep; 0: all."""
    shuffle_window: int | None = field(default=None, metadata=marks(fixed=True, least=1, one_stream=True))
    """For disks with slow random reads: read shards sequentially and shuffle within this many rows held in
    the page cache. Default: shuffle the whole epoch and read at random positions."""
    compile: Literal["necks", "none"] | None = None
    """Parts to compile with torch.compile during training: necks (the BiFPN) or none. Default: necks on a
    GPU, none on a CPU."""
    logger: tuple[str, ...] = ()
    """Loggers besides metrics.csv: tensorboard, wandb (Weights & Biases; WANDB_MODE=offline works without a
    network), or both."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        for name in self.logger:
            if name not in LOGGERS:
                raise ValueError(f"logger {name!r}: expected one of {', '.join(LOGGERS)}")
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError(f"epochs {self.epochs:g}: expected more than 0")
        fraction = self.data_fraction
        if fraction is None:
            return
        if self.subset is not None:
            raise ValueError(f"data_fraction {fraction} and subset {self.subset!r}: give only one of them")
        if not 0 < fraction <= 1:
            raise ValueError(f"data_fraction {fraction}: expected more than 0 and at most 1")
        percent = f"{100 * fraction:.12f}".rstrip("0").rstrip(".")  # no exponent, which a subset has not
        object.__setattr__(self, "subset", f"{percent}%")
        object.__setattr__(self, "data_fraction", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyHeadsConfig(VerbConfig):
    """Training of several heads side by side on the same batches."""

    run: str | None
    """Folder that holds the runs' folders. Default: runs/<store>-<number of heads>-heads-<n>."""
    resume: bool
    """Resume all runs."""
    heads: dict[str, TrainConfig]
    """Configuration of each run by name, which is also its folder's name; each trains as it would alone."""
