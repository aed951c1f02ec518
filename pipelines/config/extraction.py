"""Settings of `plan` and `extract`: the content of a store, and who extracts it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config.engines import RayConfig, SlurmConfig
from pipelines.config.fields import VerbConfig, marks
from pipelines.config.time_span import seconds_of


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
    """Encoding of the features: int8, float16, or q<error> such as q2 and q5, an error in percent of each
    channel's deviation (docs/codecs.md). Default: int8; float16 for pooled vectors, such as those of linear
    probes."""
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
    slide_stride: int | None = None
    """Step of the windows of --views slide in pixels. Default: two thirds of the crop, 341 of 512."""
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
    boxes: str | None = None
    """File of person boxes that the rows of a test split of poses are of: a detector's, in COCO's results
    format. Default: the annotated boxes."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments that override those of the model, such as --model-args.img_size 256."""
    mean: tuple[float, ...] | None = None
    """Mean of red, green and blue in 0..1 that the backbone's input is normalised by, such as
    0.485,0.456,0.406. Default: as timm records it for the model."""
    std: tuple[float, ...] | None = None
    """Standard deviation that it is divided by. Default: as timm records it for the model."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How images are resized, with antialias. Default: as timm records it for timm:<id>; for backbones of
    this project as in the view recipe: bicubic for classification, else bilinear."""
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
    max_shards: int | None = field(default=None, metadata=marks(least=1))
    """Number of shards after which no further one is begun, for short jobs; the exit code is 0. Default: no
    limit."""
    engine: Literal["local", "slurm", "ray"] = "local"
    """Where the work runs. local: on this machine; slurm: in an array of jobs; ray: in actors of a Ray
    cluster."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """The array of jobs."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The actors."""
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
