"""Folders of runs as training and evaluation leave them, without either."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heads import build_head
from heads.former_defaults import head_revision as head_revision_of
from pipelines.config import TrainConfig
from pipelines.runs import run_folder as runs
from pipelines.runs.costs import COSTS, RunCosts
from stores.pyramid import Level, PyramidSpec

PYRAMID = PyramidSpec(
    tuple(Level(name=f"p{s + 1}", stride_px=2 << s, channels=8 << s, stage=s) for s in (1, 2, 3, 4))
)
TASKS = {"ade20k": "segmentation", "coco": "detection", "k400": "video", "in1k": "classification"}
TASKS |= {"nyudepthv2": "depth", "kitti_depth": "depth", "coco_pose": "pose"}
TIMM_IDS = {
    "swinv2-t": "swinv2_tiny_window8_256.ms_in1k",
    "swinv2-b": "swinv2_base_window12_192.ms_in22k",
    "swinv2-l": "swinv2_large_window12_192.ms_in22k",
    "swinv2-g": "swinv2_cr_giant_384.untrained",
    "swinv2-nano": "swinv2_tiny_window8_256.ms_in1k",
}
RECORDS = {"ade20k": 20210, "coco": 117266, "k400": 240436, "in1k": 1_281_167}
RECORDS |= {"nyudepthv2": 24_231, "kitti_depth": 23_158, "coco_pose": 149_813}


def class_names_of(dataset: str) -> tuple[str, ...]:
    """The paper's classes of a data set."""
    if TASKS[dataset] == "depth":
        return ()
    if dataset == "ade20k":
        from extract.datasets.ade20k import CLASS_NAMES

        return CLASS_NAMES
    if dataset == "coco":
        from extract.datasets.coco import CLASS_NAMES as COCO_NAMES

        return COCO_NAMES
    if dataset == "coco_pose":
        from extract.datasets.persons.coco_rule import COCO_KEYPOINTS

        return COCO_KEYPOINTS.names
    if dataset == "in1k":
        from extract.datasets.layouts.synsets import imagenet_synsets, short_names

        return tuple(short_names(imagenet_synsets()) or ())
    from torchvision.models._meta import _KINETICS400_CATEGORIES

    return tuple(_KINETICS400_CATEGORIES)


def made_record(
    *,
    head: str = "fpn",
    dataset: str = "ade20k",
    model: str = "swinv2-b",
    weights: str | None = "timm",
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    digest: str = "0123456789abcdef",
    weights_sha256: str = "0" * 64,
    records: int | None = None,
    head_revision: int | None = None,
) -> runs.RunRecord:
    names = list(class_names if class_names is not None else class_names_of(dataset))
    return runs.RunRecord(
        head=head,
        head_settings=dict(settings or {}),
        pyramid=PYRAMID.to_json(),
        identity={
            "dataset": {"name": dataset, "task": TASKS[dataset], "num_classes": len(names),
                        "class_names": names, "records": {"count": records or RECORDS[dataset]},
                        "subset": None},
            "views": {"seed": 0},
            "backbone": {"model": model, "timm_id": TIMM_IDS.get(model, model.removeprefix("timm:")),
                         "args": dict(args or {}), "weights_sha256": weights_sha256},
            "codec": {"name": "int8", "settings": {}},
        },
        stores=(runs.StoreReference(path="features/s", identity_digest=digest, manifest_digest="1"),),
        stores_folder="features",
        weights=weights,
        data=None,
        verify="always",
        versions={},
        head_revision=head_revision or head_revision_of(head, TASKS[dataset]),
    )  # fmt: skip


def made_run(
    folder: Path,
    scores: Mapping[str, Mapping[str, float]],
    *,
    seed: int = 0,
    costs: bool = True,
    subset: str | None = None,
    steps: int = 40,
    parameter_count: int | None = None,
    **record: Any,
) -> Path:
    """A run of 40 steps whose last checkpoint is `steps`; `record`: as of `made_record`."""
    made = made_record(**record)
    folder.mkdir(parents=True)
    config = TrainConfig(
        head=made.head, head_settings=made.head_settings, seed=seed, subset=subset, max_steps=40
    )
    runs.write_run(folder, config, made)
    if steps:
        runs.checkpoint_path(folder, steps).touch()
    for number, (views, of) in enumerate(scores.items()):
        summary = {"views": views, "scores": of, "step": steps}
        (folder / f"evaluate{'-' * number}.json").write_text(json.dumps(summary))
    if costs:
        taken = RunCosts(
            parameters=parameter_count or parameters(made.head), batch_size=16, timed_steps=30,
            timed_seconds=6.0 + 3 * seed, seconds=7200.0, peak_bytes=(2 + seed) * 10**9,
            peak_of="process", device="cpu",
        )  # fmt: skip
        (folder / COSTS).write_text(json.dumps(dataclasses.asdict(taken)))
    return folder


def parameters(head: str) -> int:
    made = build_head(head, "segmentation", PYRAMID, 150, seed=0, width=16)
    return sum(p.numel() for p in made.parameters() if p.requires_grad)
