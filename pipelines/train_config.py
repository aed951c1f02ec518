"""Settings of `train-head`, and of several heads trained side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config_fields import VerbConfig, marks


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads a nested default by vars()
class OptimizerConfig:
    """AdamW over the head's parameters."""

    lr: float = 2e-3
    """Peak learning rate, for `batch_size` rows a step."""
    weight_decay: float = 0.05
    """Decoupled weight decay; norms have none, as in mmseg's Swin, nor have embeddings, as in Mask2Former."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""
    clip_norm: float | None = None
    """Largest norm of all gradients together; None: not clipped."""


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads a nested default by vars()
class ScheduleConfig:
    """The learning rate over `max_steps`."""

    shape: Literal["poly", "cosine", "step", "constant"] = "poly"
    """After the warm-up; poly of power 1 is linear."""
    power: float = 1.0
    """Exponent of poly."""
    milestones: tuple[float, ...] = ()
    """step: shares of the run after which the rate falls, such as 0.875 for epoch 63 of 72."""
    gamma: float = 0.1
    """step: what each milestone multiplies the rate by."""
    warmup_steps: int = 1500
    """Steps that lead linearly to the peak; a run uses at most a tenth of its `max_steps`."""
    warmup_share: float | None = None
    """Share of the run that leads linearly to the peak, such as 0.0833333 for 2.5 of 30 epochs; None:
    `warmup_steps` says."""
    warmup_start: float = 1e-6
    """Share of the peak rate in the first step of the warm-up."""
    end: float = 0.0
    """Share of the peak rate at `max_steps`."""

    def __post_init__(self) -> None:
        if self.warmup_share is not None and not 0 <= self.warmup_share <= 1:
            raise ValueError(f"schedule.warmup_share {self.warmup_share}: expected a share of the run, 0..1")
        shares = list(self.milestones)
        if shares != sorted(shares) or not all(0 < share < 1 for share in shares):
            raise ValueError(f"schedule.milestones {shares}: expected rising shares of the run, 0..1")
        if self.shape == "step" and not shares:
            raise ValueError("schedule.shape step needs schedule.milestones: where the rate falls")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(VerbConfig):
    """A head, the store it learns from, and how."""

    head: str = field(metadata=marks(one_report_row=True))
    """Name of the head for the data set's task, such as linear, fpn or bifpn5; several, such as fpn,bifpn5,
    train side by side on one stream of batches, each as it would alone (also --lr 1e-3,2e-3)."""
    head_settings: dict[str, Any] = field(default_factory=dict, metadata=marks(one_report_row=True))
    """Settings of the head over its preset's, such as --head-settings.width 64."""
    dataset: str | None = field(default=None, metadata=marks(one_stream=True))
    """Data set of the store; None: any."""
    model: str | None = field(default=None, metadata=marks(one_stream=True))
    """Backbone of the store; None: any."""
    split: str | None = field(default=None, metadata=marks(one_stream=True))
    """Split of the store; None: the training split."""
    weights: str | None = field(default=None, metadata=marks(one_stream=True))
    """Weights of the store's backbone, as given to extract; None: any. With `online`: None is timm."""
    levels: tuple[str, ...] | None = field(default=None, metadata=marks(one_report_row=True))
    """Levels the head is given; None: those it needs."""
    store: tuple[str, ...] | None = None
    """Store folders; several are more views of the same records. None: the one complete store that fits."""
    stores: str = field(default="features", metadata=marks(one_stream=True))
    """Folder that holds the stores."""
    val_store: str | None = None
    """Test store for validation during training; None: the one complete one that fits, if there is one."""
    recipe: str | None = None
    """A file of pipelines/recipes by name, or a path. None: the one shipped for this data set and head."""
    run: str | None = None
    """Folder of the run; None: runs/<store>-<head>-<n>."""
    resume: bool = False
    """Continue the run in `run` from its last checkpoint, exactly; its own configuration is the default."""
    online: bool = field(default=False, metadata=marks(one_stream=True))
    """Train on the live backbone with new views in every epoch, without a store; needs `dataset`, `model`."""
    data: str | None = field(default=None, metadata=marks(one_stream=True))
    """Folder of the data set, for `online` and for source `pixels`; None: data/<official folder name>."""
    pixels: Literal["stored", "source"] | None = field(default=None, metadata=marks(one_stream=True))
    """For a head that reads levels above those a store holds: the backbone's first stages recompute them from
    stored pixels or from the source images. None: from the store's, where it holds them."""
    crop_size: int | None = field(default=None, metadata=marks(one_stream=True))
    """Side of a training view in pixels, for `online`; None: the view recipe's."""
    model_args: dict[str, Any] = field(default_factory=dict, metadata=marks(one_stream=True))
    """Constructor arguments of the backbone, for `online`."""
    window_rule: Literal["partition", "cover"] | None = field(default=None, metadata=marks(one_stream=True))
    """Window rule of a Swin backbone, for `online`; None: as of extract."""
    subset: str | None = field(default=None, metadata=marks(one_stream=True, one_report_row=True))
    """Share of the records (1%), fold of COCO (coco-1pct-fold1), or a file with one key a line; None: all."""
    data_fraction: float | None = None
    """Another way to write `subset`: 0.1 is 10%."""
    max_steps: int = field(default=160_000, metadata=marks(least=1, one_report_row=True))
    """Optimiser steps of the run; of this and `epochs` the one given last counts."""
    epochs: float | None = field(default=None, metadata=marks(one_report_row=True))
    """Length of the run in epochs, from which `max_steps` follows when it starts; None: `max_steps` says."""
    repeat: int = field(default=1, metadata=marks(least=1, one_report_row=True))
    """Visits of each record in one of the `epochs`, as mmdet's RepeatDataset; each shows its next view."""
    batch_size: int = field(default=16, metadata=marks(least=1, one_stream=True, one_report_row=True))
    """Rows of a step, over all processes that torchrun started."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig, metadata=marks(one_report_row=True))
    """How the weights move."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig, metadata=marks(one_report_row=True))
    """How the learning rate moves."""
    seed: int = field(default=0, metadata=marks(one_stream=True))
    """Seed of the head's first weights, the order of the rows and dropout."""
    seeds: int = field(default=1, metadata=marks(one_stream=True))
    """Runs with so many seeds, from `seed` on, one after another, each in <run>/seed<n>; see `report`."""
    precision: Literal["fp32", "bf16"] | None = field(default=None, metadata=marks(one_report_row=True))
    """bf16 is autocast; None: bf16 on a GPU, fp32 on a CPU."""
    device: str = field(default="auto", metadata=marks(one_stream=True))
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""
    threads: int | None = field(default=None, metadata=marks(one_stream=True))
    """Threads that read rows; None: 2, or one a processor core where there are fewer."""
    verify: Literal["always", "first-epoch", "off"] = field(default="always", metadata=marks(one_stream=True))
    """When a chunk's checksum is compared; anything but always gives up that bytes are right."""
    log_every: int = field(default=50, metadata=marks(least=0))
    """Steps between two lines of the log."""
    val_every: int | None = field(default=None, metadata=marks(least=0))
    """Steps between two validations; None: a tenth of `max_steps`; 0: only at the end."""
    checkpoint_every: int | None = field(default=None, metadata=marks(least=1))
    """Steps between two checkpoints; None: a tenth of `max_steps`."""
    keep_checkpoints: int = field(default=3, metadata=marks(least=0))
    """Checkpoints of a run that stay, the last ones; 0: all."""
    shuffle_window: int | None = field(default=None, metadata=marks(least=1, one_stream=True))
    """For disks that are slow at random places: read shards forward, shuffle within so many rows kept in
    memory. None: shuffle the whole epoch, and read at random places."""
    compile: Literal["necks", "none"] | None = None
    """torch.compile of the BiFPN in training; None: necks on a GPU, none on a CPU."""
    tensorboard: bool = False
    """Log to TensorBoard too, beside the CSV file."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError(f"epochs {self.epochs:g}: expected more than 0")
        fraction = self.data_fraction
        if fraction is None:
            return
        if self.subset is not None:
            raise ValueError(f"data_fraction {fraction} and subset {self.subset!r}: give one of them")
        if not 0 < fraction <= 1:
            raise ValueError(f"data_fraction {fraction}: expected more than 0 and at most 1")
        percent = f"{100 * fraction:.12f}".rstrip("0").rstrip(".")  # no exponent, which a subset has not
        object.__setattr__(self, "subset", f"{percent}%")
        object.__setattr__(self, "data_fraction", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyHeadsConfig(VerbConfig):
    """Several runs side by side on one stream of batches."""

    run: str | None
    """Folder of the runs' folders; None: runs/<store>-<number of heads>-heads-<n>."""
    resume: bool
    """Continue all of them."""
    heads: dict[str, TrainConfig]
    """Each head's run by its name, which is its folder's; as it would be trained alone."""
