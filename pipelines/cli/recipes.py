"""Recipes of training runs: YAML files of pipelines/recipes, found by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.catalog.stores import PLAN, TRAINING, describe_store, list_stores, stored_name
from pipelines.cli.settings import settings_of
from pipelines.config import GROUP_RECORD, RUN_CONFIG, TrainConfig
from pipelines.errors import UsageError
from stores.remote.store_url import store_path
from stores.suggestion import did_you_mean

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPES = {
    ("ade20k", "linear"): "ade20k-linear",
    ("ade20k", "fpn"): "ade20k-upernet-frozen",
    ("ade20k", "bifpn"): "ade20k-upernet-frozen",
    ("ade20k", "m2f-pd1-td"): "ade20k-m2f-frozen",
    ("ade20k", "m2f-pd6-td"): "ade20k-m2f-frozen",
    ("ade20k", "pixeldec"): "ade20k-m2f-frozen",
    ("ade20k", "dino-linear"): "dino-linear",
    ("ade20k", "simplefpn"): "ade20k-upernet-frozen",
    ("ade20k", "feature2pyramid"): "ade20k-upernet-frozen",
    ("ade20k", "simplefpn-m2f-pd1-td"): "ade20k-m2f-frozen",
    ("ade20k", "simplefpn-m2f-pd6-td"): "ade20k-m2f-frozen",
    ("coco", "fpn"): "coco-100pct",
    ("coco", "simplefpn"): "coco-100pct",
    ("coco", "cascade-simplefpn"): "coco-100pct",
    ("coco", "fpn-res"): "coco-100pct",
    ("coco", "bifpn"): "coco-100pct",
    ("coco", "cascade-fpn"): "coco-100pct",
    ("coco", "cascade-bifpn"): "coco-100pct",
    ("coco", "htc-bifpn"): "coco-100pct",
    ("coco", "htc-nosem-bifpn"): "coco-100pct",
    ("coco_pose", "pose-deconv4x"): "coco-pose-frozen",
    ("coco_pose", "pose-deconv2x"): "coco-pose-frozen",
    ("in1k", "linear"): "in1k-linear-mae",
    ("in1k", "linear-cls"): "in1k-linear-dino",
    ("in1k", "linear-cls-avg"): "in1k-linear-dino",
    ("in1k", "linear-cls4-avg"): "in1k-linear-dino",
    ("k400", "linear"): "k400-frozen",
    ("k400", "temporal"): "k400-frozen",
    ("k400", "global"): "k400-frozen",
    ("nyudepthv2", "depth-deconv2x"): "nyudepthv2-frozen",
    ("nyudepthv2", "depth-dpt"): "nyudepthv2-frozen",
    ("nyudepthv2", "depth-linear"): "depth-linear-dinov2",
    ("kitti_depth", "depth-deconv2x"): "kitti_depth-frozen",
    ("kitti_depth", "depth-dpt"): "kitti_depth-frozen",
    ("kitti_depth", "depth-linear"): "depth-linear-dinov2",
}
"""By data set and head without its digits: recipes are named after what they reproduce, not after heads."""

SMALL_RECORDS = 5_000
"""Own data of at most so many records has the recipes for small data."""
_SMALL = {
    "segmentation": "small-segmentation",
    "detection": "small-detection",
    "video": "small-video",
    "classification": "small-classification",
    "pose": "small-pose",
    "depth": "small-depth",
}
"""By task, for own data; `_SMALL_HEADS` come first."""
_SMALL_HEADS = {"m2f-pd1-td": "small-m2f", "m2f-pd6-td": "small-m2f", "pixeldec": "small-m2f"}
_SMALL_HEADS |= {f"simplefpn-{head}": recipe for head, recipe in _SMALL_HEADS.items() if "m2f" in head}
_LIKE = {
    "segmentation": "ade20k",
    "detection": "coco",
    "video": "k400",
    "classification": "in1k",
    "pose": "coco_pose",
    "depth": "nyudepthv2",
}
"""By task: the data set whose recipes larger own data has."""


def recipe_names() -> tuple[str, ...]:
    """Every shipped recipe."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))


def recipe_name(path: Path) -> str:
    """What `find_recipe` finds that file by."""
    return path.stem if path.parent == RECIPES else str(path)


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or path. Raises UsageError listing the known names."""
    shipped = RECIPES / f"{name}.yaml"
    if "/" not in name and shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    hint = did_you_mean(name, recipe_names())
    known = ", ".join(recipe_names())
    raise UsageError(f"unknown recipe {name!r}{hint}; expected a YAML file or one of: {known}")


def default_recipe(dataset: str, head: str) -> Path | None:
    """The default recipe, from DEFAULT_RECIPES (bifpn5 counts as bifpn); None where it has none."""
    name = DEFAULT_RECIPES.get((dataset, head.rstrip("0123456789")))
    return RECIPES / f"{name}.yaml" if name else None


def own_recipe(task: str, head: str, records: int) -> Path | None:
    """The default recipe of a head on own data: by its task and size.

    >>> own_recipe("segmentation", "bifpn5", 160).stem, own_recipe("segmentation", "bifpn5", 20_000).stem
    ('small-segmentation', 'ade20k-upernet-frozen')
    """
    if records > SMALL_RECORDS:
        return default_recipe(_LIKE.get(task, ""), head)
    name = _SMALL_HEADS.get(head.rstrip("0123456789")) or _SMALL.get(task)
    return RECIPES / f"{name}.yaml" if name else None


def base_file(given: Mapping[str, str]) -> Path | None:
    """The file whose settings stand under those `given` to train-head: the resumed run's own, or a recipe.

    Raises UsageError if the run to resume has none, or for an unknown recipe.
    """
    if given.get("resume") == "true":
        if "run" not in given:
            raise UsageError("--resume needs --run, the folder of the run to resume")
        recorded = Path(given["run"]) / RUN_CONFIG
        if not recorded.is_file():
            groups = sorted(str(path.parent) for path in Path(given["run"]).glob(f"seed*/{GROUP_RECORD}"))
            hint = f"; resume its seeds one at a time: --run {', --run '.join(groups)}" if groups else ""
            raise UsageError(
                f"--resume: {given['run']} is not the folder of a run, {recorded} does not exist{hint}"
            )
        return recorded
    if "recipe" in given:
        return find_recipe(given["recipe"])
    if "head" not in given:
        return None
    if given.get("dataset") in {dataset for dataset, _ in DEFAULT_RECIPES}:
        return default_recipe(given["dataset"], given["head"])
    if given.get("online") == "true" and "dataset" in given:
        return _online_recipe(given)
    found = _dataset_of_stores(given)
    if found is None:
        return None
    if "description" in found:
        return own_recipe(found["task"], given["head"], _records(found))
    return default_recipe(found["name"], given["head"])


def _records(dataset: Mapping[str, Any]) -> int:
    return int((dataset.get("subset") or dataset["records"])["count"])


def _online_recipe(given: Mapping[str, str]) -> Path | None:
    """The default recipe of a head that trains on the images of a data set; of own data they are counted."""
    from extract.datasets import dataset_module, open_dataset  # late: a run from stores needs no images

    name = given["dataset"]
    if not hasattr(dataset_module(name), "description"):
        return default_recipe(name, given["head"])
    opened = open_dataset(name, given.get("data"), given.get("split"), given.get("subset"))
    count = len(opened.records if opened.subset is None else opened.subset)
    return own_recipe(opened.task, given["head"], count)


def _dataset_of_stores(given: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The `dataset` in the identity of a store that a training run would look at, where all are of one data
    set; where one is asked for, of the stores of that one."""
    named = json.loads(given["store"]) if "store" in given else None
    folder = store_path(given.get("stores", settings_of(TrainConfig)["stores"].default))
    stores = [store_path(path) for path in named] if named else [found.path for found in list_stores(folder)]
    if "dataset" in given:  # a store that is not there is refused when it is opened
        stores = [path for path in stores if (path / PLAN).is_file()]
    found = [store for store in map(describe_store, stores) if store.purpose == TRAINING]
    if "dataset" in given:
        name = stored_name(given["dataset"])
        found = [store for store in found if store.dataset == name]
    return found[0].identity["dataset"] if len({store.dataset for store in found}) == 1 else None
