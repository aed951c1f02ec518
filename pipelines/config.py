"""Settings of every verb, one frozen dataclass each; the only place of defaults.

Flags are the field names with hyphens, YAML keys the field names with underscores. A value is taken from the
first of: flags, `--config FILE.yaml`, the recipe (train-head), the default here. A default of None is chosen
when the verb runs, and the field says how. Nothing heavy is imported here, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config_fields import VerbConfig, marks
from pipelines.train_config import ManyHeadsConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.units import seconds_of

__all__ = [
    "GROUP_RECORD",
    "RUN_CONFIG",
    "CompletionConfig",
    "DemoConfig",
    "DescribeConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "ForecastConfig",
    "GcConfig",
    "InfoConfig",
    "ManyHeadsConfig",
    "OptimizerConfig",
    "PlanConfig",
    "PredictConfig",
    "ProbeConfig",
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
    """The content of a store, which decides its identity, and how it is extracted."""

    dataset: str
    """Data set, such as ade20k: a file of extract/datasets; or the description file of own data, such as
    my.yaml, which `describe` writes."""
    model: str
    """Backbone: swinv2-t, -s, -b, -l, -g, swinv2-nano, or timm:<id>."""
    split: str | None = None
    """Split, by the data set's own name. Default: its training split."""
    data: str | None = None
    """Folder of the data set, or its tar files (a folder or a brace pattern). Default: data/<official folder
    name>; of own data the folder that its description names."""
    stores: str = "features"
    """Folder that holds the stores."""
    weights: str = "timm"
    """Weights of the backbone: timm (download from the hub), a .pth or .safetensors file, or random:SEED (for
    tests and benchmarks only)."""
    levels: tuple[str, ...] | None = None
    """Levels to store, such as p4,p5; last: the last map; probe: what linear probes read. Default: the levels
    that the data set's heads use."""
    codec: str | None = None
    """Encoding of the features: a file of stores/codecs. Default: int8; float16 for pooled vectors, such as
    those of linear probes."""
    views: int | str | None = None
    """Training split: number of seeded views per record. Default: 1. Test split: single (the default),
    ms-flip or slide (images), 4x3 (videos); single-ends and 4x3-ends: clips placed as in earlier
    versions."""
    view_recipe: str | None = None
    """Augmentation recipe of a training split. Default: the recipe named after the data set."""
    crop_size: int | str | None = None
    """Size of a training view in pixels, of videos also of a test view, in multiples of 32, for a plain ViT
    of its patches: the side of a square, or HEIGHTxWIDTH such as 512x1024. Default: as in the view recipe."""
    short_side: int | None = None
    """Short side of a single-scale test view in pixels. Default: as in the view recipe."""
    seed: int = 0
    """Seed of the views."""
    view_revision: int | None = None
    """Revision of the code of training views: 1 continues a store of an earlier release, whose images were
    resized whole before they were cropped. Default: the newest."""
    pixels: Literal["source", "stored"] = "source"
    """stored: the store also keeps each view's pixels; source: it does not."""
    subset: str | None = None
    """Part of the records: a share (1%), so many of each class (5shot, 5shot-seed1), a fold of COCO
    (coco-1pct-fold1), or a file with one key per line. Default: all records."""
    stuff: Literal["stuffthingmaps", "panoptic"] | None = None
    """Stuff maps of COCO that training rows hold too, for heads with a semantic branch such as htc-bifpn5.
    Default: none."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments that override those of the model, such as --model-args.img_size 256."""
    mean: tuple[float, ...] | None = None
    """Mean of red, green and blue in 0..1 that the backbone's input is normalised by, such as
    0.485,0.456,0.406. Default: as timm records it for the model."""
    std: tuple[float, ...] | None = None
    """Standard deviation that it is divided by. Default: as timm records it for the model."""
    pretrained_tag: str | None = None
    """Which published weights of timm:<id> a weights file is like, such as mae or augreg_in21k: mean,
    deviation and size are theirs. Same as timm:<id>.<tag>."""
    pos_resample: Literal["timm", "dinov2"] | None = None
    """How a ViT's position embeddings follow the image size. timm: bicubic with antialias; dinov2: without,
    as DINOv2 and transformers. Default: timm."""
    window_rule: Literal["partition", "cover"] | None = None
    """Rule for Swin windows at least as large as the feature map. partition: pad the map and shift windows;
    cover: shrink the window to the map, without shift. Default: cover for videos and classification,
    partition for segmentation and detection."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Precision of the backbone. Default: fp16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""
    batch_size: int | None = field(default=None, metadata=marks(least=1))
    """Images per forward pass at 512 px; larger images go in smaller batches. Default: 32 on a GPU (fewer if
    its memory requires it), 4 on a CPU."""
    workers: int | None = field(default=None, metadata=marks(least=1))
    """Threads that load images; they share at most one decoding process per core. Default: one per core."""
    shard_rows: int | None = None
    """Rows per shard, a power of two. Default: shards of at most 512 MiB, and at least eight per bin."""
    max_failed: int | None = field(default=None, metadata=marks(least=0))
    """Maximum number of unusable records to skip; more end the extraction with exit code 1. Default: 1 % of
    the records but at least 10, and never all of them."""
    max_source_mb: int = field(default=1024, metadata=marks(least=1))
    """Maximum size of a source file in MiB; larger ones are skipped without being read."""
    max_unusable: float | None = None
    """Maximum share of unusable annotations, 0 to 1; more end with exit code 1. Default: 0.05; small sets may
    have 10, at most half."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        if self.max_unusable is not None and not 0 <= self.max_unusable <= 1:
            raise ValueError(f"max_unusable {self.max_unusable:g}: expected a share from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastConfig(PlanConfig):
    """A planned extraction, and the heads to train from it."""

    head: tuple[str, ...] | None = None
    """Heads you plan to train from the store; plan measures a step of each and reports whether caching pays.
    Default: none; with `details` a small and a large head for the task."""
    details: bool = False
    """Print and measure everything: levels, windows, labels, stages, and other codecs, levels and ways to
    train the heads compared. By default plan prints bytes, time, room and the next command."""
    recipe: str | None = None
    """Training recipe of the heads, by name or path; it sets steps and batch size. Default: the recipe
    shipped for each head."""
    remeasure: bool = False
    """Measure this machine again. By default, measurements of the last seven days are reused from the user's
    cache folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig(PlanConfig):
    """An extraction."""

    single_writer: bool = False
    """Promise that no other process writes to the store, for disks that cannot keep two writers apart, as
    `doctor` reports: without hard links and without renames that do not replace."""
    retry_skipped: bool = False
    """Make a second store beside a complete one that skipped records: its rows are copied, the skipped ones
    tried again. The old store is not touched."""
    stall_s: float = 600.0
    """Seconds without progress after which shards of another process are taken over; those of a process that
    has ended on this machine are taken over at once."""
    devices: str | None = None
    """Devices with a process each, which share the store: cuda:0,cuda:1, all (GPUs that are visible) or
    cpu:2, two processes on the CPU. Default: all GPUs, unless `device` names one or a launcher such as srun
    or torchrun has started a process for each."""
    part: str | None = None
    """Part of a store that several processes fill, counted from 0: 0/8 to 7/8. Its own shards come first,
    then those of others that no process computes; what others still compute is left to them. auto/8: the
    number from the environment (JOB_COMPLETION_INDEX of Kubernetes); none: all of the store. Default: as the
    environment says (arrays and tasks of SLURM, torchrun), else none."""
    stop_after: str | None = None
    """Time such as 3h50m after which no further shard is begun: those begun are finished, and the exit code
    is 0. SIGTERM and SIGUSR1 do the same. Default: no limit."""
    engine: Literal["local"] = "local"
    """Where the work runs. local: in this process."""
    codec_limit: float | None = None
    """Maximum codec error: the median over channels of error divided by standard deviation, for any level.
    Default: no limit."""

    def __post_init__(self) -> None:
        PlanConfig.__post_init__(self)
        if self.codec_limit is not None and self.codec_limit <= 0:
            raise ValueError(f"codec_limit {self.codec_limit:g}: expected a number above 0, such as 0.02")
        if self.part is not None and not re.fullmatch(r"none|(auto|\d+)/0*[1-9]\d*", self.part):
            raise ValueError(
                f"part {self.part!r}: expected a part counted from 0 such as 0/8, auto/8 or none"
            )
        if self.stop_after is not None:
            try:
                seconds_of(self.stop_after)
            except ValueError as error:
                raise ValueError(f"stop_after {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig(VerbConfig):
    """The store or stores to inspect (status, info)."""

    store: str | None = None
    """Folder of the store. Default: every store in `stores`."""
    stores: str = "features"
    """Folder that holds the stores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig(StoreConfig):
    """Stores to describe, on the terminal or as a page."""

    out: str | None = None
    """HTML page to write, of one store: .html. Default: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig(StoreConfig):
    """Checks of a store beyond its structure and sizes."""

    full: bool = False
    """Read every byte and compare every checksum."""
    source: bool = False
    """Compare the sha256 of each source file with the one recorded at extraction."""
    data: str | None = None
    """Folder of the data set, for `source`. Default: data/<official folder name>."""
    manifest_digest: str | None = None
    """Expected sha256 of the manifest, 64 hexadecimal digits. Default: not compared."""
    content_digest: bool = False
    """Compute the content digest from every row, print it and compare it with the recorded one. Two stores of
    equal content have equal digests, however they are laid out."""
    repair: bool = False
    """List the receipts of damaged shards, and with `yes` remove them: extract then writes them again. Run it
    only while no extraction is running."""
    yes: bool = False
    """Confirms the removal that `repair` lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GcConfig(StoreConfig):
    """Files that killed writers left behind."""

    delete: bool = False
    """Delete the files. By default they are only listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig(VerbConfig):
    """Checks of this machine."""

    stores: str = "features"
    """Folder whose disk is measured."""


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
    data: str | None = None
    """Folder of the data set, for `live` and `pixels source`. Default: the folder recorded in the run, or
    data/<official name>."""
    pixels: Literal["stored", "source"] | None = None
    """Where a test store's missing shallow levels are recomputed from, as in train-head. Default: stored
    pixels, if the store has them."""
    split: str | None = None
    """Split to evaluate. Default: the data set's test split."""
    views: Literal["single", "ms-flip", "slide", "4x3", "single-ends", "4x3-ends"] | None = None
    """Test views, of a store or `live`. Default: single; of a store, the views it holds."""
    short_side: int | None = None
    """Short side of a test view at ratio 1 in pixels; None: that of the run's training views."""
    weights: str | None = None
    """Weights of the backbone, for `live` and recomputed levels. Default: those recorded in the run."""
    precision: Literal["fp32", "bf16"] | None = None
    """Precision of the head; bf16 uses autocast. Default: bf16 on a GPU, fp32 on a CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""
    threads: int | None = None
    """Threads that read rows. Default: 2, or 1 on a single core."""


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
    weights: str | None = None
    """Weights of the backbone. Default: those recorded in the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: a GPU if available, else the CPU."""


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
class ExportConfig(VerbConfig):
    """A run and the file to write its head to."""

    run: str
    """Folder of the run."""
    out: str
    """File to write, such as shared/head.safetensors; config.json and README.md are written beside it."""
    format: Literal["safetensors"] = "safetensors"
    """safetensors: the head's weights, with all that builds it again in the header."""
    checkpoint: str = "last"
    """Checkpoint of the run: last, best (the best validation score) or the number of a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeConfig(VerbConfig):
    """A folder of own data, and the description to write."""

    data: str
    """Folder to look at; the flag itself may be left out."""
    out: str | None = None
    """Description to write, such as my.yaml. Default: it is printed."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionConfig(VerbConfig):
    """A shell that completes verbs and flags."""

    shell: Literal["bash", "zsh", "tcsh"] = "bash"
    """The shell to print the script for; its users source it or put it where their shell looks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig(VerbConfig):
    """An end-to-end run on generated data with the bundled small backbone."""

    dataset: Literal["ade20k", "coco", "k400", "own"] = "ade20k"
    """Data set whose layout the generated scenes or clips follow; it determines the task. own: images and
    masks of own classes, described by `describe` first."""
    run: str = "runs/demo"
    """Folder for everything the demo creates: data, stores, runs, table and picture."""
    head: str | None = None
    """Head to train; for ade20k and k400 it is compared with the linear head. Default: bifpn1; for k400
    temporal4 and global4."""
    seed: int = 0
    """Seed of the heads' initial weights and of the row order; the scenes are always the same."""


RUN_CONFIG = "config.yaml"
"""File of a run's folder with its configuration, written by `config_yaml`; `--resume` starts from it."""
GROUP_RECORD = "heads.json"
"""File of a folder of several heads' runs: which they are, and which were stopped."""


def config_yaml(config: VerbConfig) -> str:
    """`config` as YAML that `--config` takes back."""
    import yaml  # late, so that doctor can report that it is missing

    plain = {
        name: value for name, value in dataclasses.asdict(config).items() if name not in ("json", "debug")
    }
    text: str = yaml.safe_dump(_without_tuples(plain), sort_keys=False)
    return text


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, list | tuple) else value
