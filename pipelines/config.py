"""What every verb can be told: one frozen dataclass a verb; the only home of defaults.

Flags are the field names with hyphens, YAML keys the field names with underscores. A value is taken from the
first of: flags, `--config FILE.yaml`, the recipe (train-head), the default here. None always means "chosen
for you", and the field says how. Nothing heavy is imported here, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config_fields import VerbConfig, marks
from pipelines.train_config import ManyHeadsConfig, OptimizerConfig, ScheduleConfig, TrainConfig

__all__ = [
    "GROUP_RECORD",
    "RUN_CONFIG",
    "DemoConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "ForecastConfig",
    "GcConfig",
    "ManyHeadsConfig",
    "OptimizerConfig",
    "PlanConfig",
    "PredictConfig",
    "ReportConfig",
    "ScheduleConfig",
    "StoreConfig",
    "TrainConfig",
    "VerbConfig",
    "VerifyConfig",
    "config_yaml",
]  # fmt: skip


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
    window_rule: Literal["partition", "cover"] | None = None
    """Windows of a Swin that are no smaller than a map: partition pads the map and shifts, cover cuts the
    window and does not. None: cover for videos, partition for segmentation and detection."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Precision of the backbone's forward; None: fp16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""
    batch_size: int | None = field(default=None, metadata=marks(least=1))
    """Rows of a forward pass at 512 px, fewer of larger ones. None: 32 on a GPU, or what fits; 4 on a CPU."""
    workers: int | None = field(default=None, metadata=marks(least=1))
    """Threads that load rows; processes that decode for them are at most one a core. None: one a core."""
    shard_rows: int | None = None
    """Rows of a shard, a power of two; None: by size, at least eight shards a bin."""
    max_failed: int | None = field(default=None, metadata=marks(least=0))
    """Broken records that may be skipped, else exit code 1; None: 1 % of all, at least 10, never all."""
    max_unusable: float | None = None
    """Share of annotations that may be unusable, else exit code 1; None: 0.05, or 10 but at most half."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        if self.max_unusable is not None and not 0 <= self.max_unusable <= 1:
            raise ValueError(f"max_unusable {self.max_unusable:g}: expected a share, 0 to 1")


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
    codec_limit: float | None = None
    """Stop where the codec changes a level's median channel by more than this share of its deviation."""

    def __post_init__(self) -> None:
        PlanConfig.__post_init__(self)
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
