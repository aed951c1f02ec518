"""What every verb can be told: one frozen dataclass a verb; the only home of defaults.

Flags are the field names with hyphens, YAML keys the field names with underscores. A value is taken from the
first of: flags, `--config FILE.yaml`, the recipe (train-head), the default here. None always means "chosen
for you", and the field says how. Nothing heavy is imported here, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class VerbConfig:
    """Flags that every verb has."""

    json: bool = False
    """Print a summary as one line of JSON, the last line of stdout."""
    debug: bool = False
    """Show the traceback of an error; the environment variable PERMAFROST_DEBUG=1 does the same."""


def _require_at_least(config: VerbConfig, least: Mapping[str, int]) -> None:
    """Raises ValueError for a count below the least it can be; None is chosen elsewhere."""
    for name, number in least.items():
        if (value := getattr(config, name)) is not None and value < number:
            raise ValueError(f"{name} {value}: expected {number} or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig(VerbConfig):
    """Which rows a store holds, of which pyramids: what decides its identity, and how fast it fills."""

    dataset: str
    """Name of the data set, such as ade20k: a file of extract/datasets."""
    model: str
    """Backbone: swinv2-t, -s, -b, -l, -g, swinv2-nano, or timm:<id>."""
    split: str | None = None
    """Official name of the split; None: the data set's training split."""
    data: str | None = None
    """Folder of the data set, or tars (a folder or a brace pattern); None: data/<official folder name>."""
    stores: str = "features"
    """Folder that holds the stores."""
    weights: str = "timm"
    """timm (the hub's), a .pth or .safetensors file, or random:SEED (tests and benchmarks only)."""
    levels: tuple[str, ...] | None = None
    """Levels to keep, such as p4,p5; None: all the backbone has."""
    codec: str = "int8"
    """How features are stored: a file of stores/codecs."""
    views: int | str | None = None
    """Training splits: how many seeded views of each record (1). Test splits: single (default), ms-flip for
    images or 4x3 for videos."""
    view_recipe: str | None = None
    """Augmentation of a training split; None: the one named after the data set."""
    crop_size: int | None = None
    """Side of a training view, of videos also of a test view, in pixels, a multiple of 32; None: the view
    recipe's."""
    short_side: int | None = None
    """Short side of a single-scale test view in pixels; None: the view recipe's."""
    seed: int = 0
    """Seed of the views."""
    pixels: Literal["source", "stored"] = "source"
    """stored: the store keeps each view's pixels too; source: it does not."""
    subset: str | None = None
    """Share of the records (1%), fold of COCO (coco-1pct-fold1), or a file with one key a line; None: all."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments over the model's own row, such as --model-args.img_size 256."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Precision of the backbone's forward; None: fp16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""
    batch_size: int | None = None
    """Rows of a forward pass at 512 px, fewer of larger ones. None: 32 on a GPU, or what fits; 4 on a CPU."""
    workers: int | None = None
    """Threads that load rows; processes that decode for them are at most one a core. None: one a core."""
    shard_rows: int | None = None
    """Rows of a shard, a power of two; None: shards of at most 128 MiB, at least eight of them a bin."""

    def __post_init__(self) -> None:
        _require_at_least(self, {"workers": 1, "batch_size": 1})


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastConfig(PlanConfig):
    """A plan, and the heads it shall serve."""

    head: tuple[str, ...] | None = None
    """Heads to be trained from the store: does caching pay for them? None: the plainest of the data set's
    task and a larger one."""
    recipe: str | None = None
    """Recipe of the heads, by name or path: steps and batch size. None: the one shipped for each."""
    remeasure: bool = False
    """Measure this machine again; figures of the last seven days are kept in the user's cache folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig(PlanConfig):
    """A plan, and how to carry it out."""

    engine: Literal["local"] = "local"
    """Where the work runs: local, this process."""
    max_failed: int | None = None
    """Broken records that may be skipped, else exit code 1; None: 1 % of all, at least 10, never all."""
    codec_limit: float | None = None
    """Stop where the codec changes a level's median channel by more than this share of its deviation."""

    def __post_init__(self) -> None:
        PlanConfig.__post_init__(self)
        _require_at_least(self, {"max_failed": 0})
        if self.codec_limit is not None and self.codec_limit <= 0:
            raise ValueError(f"codec_limit {self.codec_limit:g}: expected a share above 0, such as 0.02")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig(VerbConfig):
    """One store to look at (status, info)."""

    store: str | None = None
    """Folder of the store; None: every store under `stores`."""
    stores: str = "features"
    """Folder that holds the stores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig(StoreConfig):
    """What to check of a store, beyond its structure and sizes."""

    full: bool = False
    """Read every byte and compare every checksum."""
    source: bool = False
    """Compare the source files' sha256 with those the rows were made from."""
    data: str | None = None
    """Folder of the data set, for `source`; None: data/<official folder name>."""
    manifest_digest: str | None = None
    """The 64 hex digits the manifest must have, known from elsewhere; None: any manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GcConfig(StoreConfig):
    """Files that killed writers left behind."""

    delete: bool = False
    """Remove them; without it they are listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig(VerbConfig):
    """What to look at on this machine."""

    stores: str = "features"
    """Folder whose disk is measured."""


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


_LEAST = {
    **dict.fromkeys(("max_steps", "repeat", "batch_size", "checkpoint_every", "shuffle_window"), 1),
    **dict.fromkeys(("log_every", "val_every", "keep_checkpoints"), 0),
}
"""The least that a count of TrainConfig can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(VerbConfig):
    """A head, the store it learns from, and how."""

    head: str
    """Name of the head for the data set's task, such as linear, fpn or bifpn5; several, such as fpn,bifpn5,
    train side by side on one stream of batches, each as it would alone (also --lr 1e-3,2e-3)."""
    head_settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the head over its preset's, such as --head-settings.width 64."""
    dataset: str | None = None
    """Data set of the store; None: any."""
    model: str | None = None
    """Backbone of the store; None: any."""
    split: str | None = None
    """Split of the store; None: the training split."""
    weights: str | None = None
    """Weights of the store's backbone, as given to extract; None: any. With `online`: None is timm."""
    levels: tuple[str, ...] | None = None
    """Levels the head is given; None: those it needs."""
    store: tuple[str, ...] | None = None
    """Store folders; several are more views of the same records. None: the one complete store that fits."""
    stores: str = "features"
    """Folder that holds the stores."""
    val_store: str | None = None
    """Test store for validation during training; None: the one complete one that fits, if there is one."""
    recipe: str | None = None
    """A file of pipelines/recipes by name, or a path. None: the one shipped for this data set and head."""
    run: str | None = None
    """Folder of the run; None: runs/<store>-<head>-<n>."""
    resume: bool = False
    """Continue the run in `run` from its last checkpoint, exactly; its own configuration is the default."""
    online: bool = False
    """Train on the live backbone with new views in every epoch, without a store; needs `dataset`, `model`."""
    data: str | None = None
    """Folder of the data set, for `online` and for source `pixels`; None: data/<official folder name>."""
    pixels: Literal["stored", "source"] | None = None
    """For a head that reads levels above those a store holds: the backbone's first stages recompute them from
    stored pixels or from the source images. None: from the store's, where it holds them."""
    crop_size: int | None = None
    """Side of a training view in pixels, for `online`; None: the view recipe's."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments of the backbone, for `online`."""
    subset: str | None = None
    """Share of the records (1%), fold of COCO (coco-1pct-fold1), or a file with one key a line; None: all."""
    data_fraction: float | None = None
    """Another way to write `subset`: 0.1 is 10%."""
    max_steps: int = 160_000
    """Optimiser steps of the run; of this and `epochs` the one given last counts."""
    epochs: float | None = None
    """Length of the run in epochs, from which `max_steps` follows when it starts; None: `max_steps` says."""
    repeat: int = 1
    """Visits of each record in one of the `epochs`, as mmdet's RepeatDataset; each shows its next view."""
    batch_size: int = 16
    """Rows of a step, over all processes that torchrun started."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the weights move."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How the learning rate moves."""
    seed: int = 0
    """Seed of the head's first weights, the order of the rows and dropout."""
    seeds: int = 1
    """Runs with so many seeds, from `seed` on, one after another, each in <run>/seed<n>; see `report`."""
    precision: Literal["fp32", "bf16"] | None = None
    """bf16 is autocast; None: bf16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""
    threads: int | None = None
    """Threads that read rows; None: 2, or one a processor core where there are fewer."""
    verify: Literal["always", "first-epoch", "off"] = "always"
    """When a chunk's checksum is compared; anything but always gives up that bytes are right."""
    log_every: int = 50
    """Steps between two lines of the log."""
    val_every: int | None = None
    """Steps between two validations; None: a tenth of `max_steps`; 0: only at the end."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; None: a tenth of `max_steps`."""
    keep_checkpoints: int = 3
    """Checkpoints of a run that stay, the last ones; 0: all."""
    shuffle_window: int | None = None
    """For disks that are slow at random places: read shards forward, shuffle within so many rows kept in
    memory. None: shuffle the whole epoch, and read at random places."""
    compile: Literal["necks", "none"] | None = None
    """torch.compile of the BiFPN in training; None: necks on a GPU, none on a CPU."""
    tensorboard: bool = False
    """Log to TensorBoard too, beside the CSV file."""

    def __post_init__(self) -> None:
        _require_at_least(self, _LEAST)
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
class EvaluateConfig(VerbConfig):
    """A run, and what to measure it on."""

    run: str
    """Folder of the run; its last checkpoint is taken."""
    store: str | None = None
    """Test store; None: the one complete one of the run's data set, weights and levels."""
    stores: str | None = None
    """Folder that holds the stores; None: the one recorded in the run."""
    live: bool = False
    """Send the test views through the backbone instead of reading a store."""
    data: str | None = None
    """Folder of the data set, for `live` and source `pixels`; None: the run's, or data/<official name>."""
    pixels: Literal["stored", "source"] | None = None
    """For a test store that lacks the head's first levels, as of train-head; None: the store's, where it
    holds them."""
    split: str | None = None
    """Split to measure; None: the data set's test split."""
    views: Literal["single", "ms-flip", "4x3"] | None = None
    """Test views, of a store or `live`; None: single, or what the one store there is holds."""
    short_side: int | None = None
    """Short side of a test view at ratio 1 in pixels, for `live`; None: that of the run's training views."""
    weights: str | None = None
    """Weights of the backbone, for `live` and for levels that are recomputed; None: those recorded in the
    run."""
    precision: Literal["fp32", "bf16"] | None = None
    """bf16 is autocast of the head; None: bf16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""
    threads: int | None = None
    """Threads that read rows; None: 2, or one a processor core where there are fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig(VerbConfig):
    """A run, and new images or videos to show it."""

    run: str
    """Folder of the run; its last checkpoint is taken."""
    input: str
    """An image or video, as the run's task takes them, or a folder of such."""
    out: str | None = None
    """Folder of the pictures and JSON files; None: <run>/predictions."""
    weights: str | None = None
    """Weights of the backbone; None: those recorded in the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig(VerbConfig):
    """Runs to show side by side."""

    run: tuple[str, ...] = ()
    """Folders of runs, or of several; also as words without a flag. Runs that differ in their seed alone are
    one row: mean and standard deviation."""
    out: str | None = None
    """CSV file to write, with the picture (score over trainable parameters) beside it as .png; None: only
    the table on stdout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig(VerbConfig):
    """The whole path on made data with the bundled tiny backbone."""

    dataset: Literal["ade20k", "coco", "k400"] = "ade20k"
    """Data set in whose layout scenes or clips are made, and so the task."""
    run: str = "runs/demo"
    """Folder of everything the demo makes: data, stores, runs, table and picture."""
    head: str | None = None
    """Head to train; of ade20k and k400 its score is shown beside the linear head's. None: bifpn1; of k400
    temporal4 and global4."""
    seed: int = 0
    """Seed of the heads' first weights and of the order of the rows; the scenes are always the same."""


RUN_CONFIG = "config.yaml"
"""File of a run's folder with its configuration, written by `config_yaml`; `--resume` starts from it."""
GROUP_RECORD = "heads.json"
"""File of a folder of several heads' runs: which they are, and which were stopped."""


def config_yaml(config: VerbConfig) -> str:
    """`config` as YAML that `--config` takes back."""
    import yaml  # late, so that doctor can say that it is missing

    plain = {
        name: value for name, value in dataclasses.asdict(config).items() if name not in ("json", "debug")
    }
    text: str = yaml.safe_dump(_without_tuples(plain), sort_keys=False)
    return text


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, list | tuple) else value
