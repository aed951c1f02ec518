"""Data sets by name: one file each, found by its name; own data by a description file in its place.

A module offers `open_dataset(data, split, subset)`, `OFFICIAL_SPLITS`, `TRAINING_SPLITS`, `DEFAULT_FOLDER`
and its views: `VIEW_RECIPES` by name; `TRAINING_VIEWS` and `TEST_VIEWS` name those of its splits, the default
first. `DEFAULT_LEVELS` are those a store keeps by default, for data sets whose heads do not want all.
`DEFAULT_WINDOW_RULE` is the rule (`extract.swin.window_rule.WindowRule`) of the code behind a task's papers;
`DEFAULT_WINDOWS` are the windows of every Swin stage under `cover`, by the side of a view in pixels.
`TEST_VIEWS_OF_TRAINING` names, by test view, the training view that is the same, where there is one.
`write_sample(folder, records, generator)` writes a tiny set in its own layout, for tests and trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from extract.datasets.contract import Dataset, DatasetModule
from extract.datasets.own.advice import DESCRIBE
from extract.datasets.own.data_module import OwnData
from extract.datasets.own.description import Description, description_of, is_description
from extract.datasets.own.description_file import read_description
from extract.datasets.own.ready_made_sets import ready_made_file, ready_made_names
from extract.datasets.persons.box_file import BoxFile, read_box_file
from extract.sources.record import DatasetLayoutError, Record
from extract.swin.window_rule import WindowRule
from extract.views.crop_size import CropSize, plain_size
from extract.views.recipes import ViewRecipe, of_revision
from extract.views.segmentation_recipes import with_stride
from stores.plugins import missing_package, plugins
from stores.suggestion import did_you_mean

Named = str | Mapping[str, Any]
"""A data set: its name, the path of a description of own data, or the `dataset` of a store's identity."""
GROUP = "permafrost.datasets"
"""Of the entry points by which installed packages add data sets."""
COMMON_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
"""Common names of splits, and how the official names of such splits begin."""

__all__ = [
    "Choice",
    "Dataset",
    "DatasetLayoutError",
    "Record",
    "category_ids",
    "choose",
    "chosen_split",
    "data_folder",
    "dataset_module",
    "dataset_name",
    "dataset_names",
    "default_levels",
    "default_window",
    "default_window_rule",
    "first_test_split",
    "open_dataset",
    "view_recipe",
]


def dataset_names() -> tuple[str, ...]:
    """The available data sets: modules of this package and of others, and ready-made descriptions."""
    return tuple(sorted({*plugins(GROUP, __name__), *ready_made_names()}))


def dataset_module(name: Named, package: str | None = None) -> DatasetModule:
    """The module of a data set, or what stands for it of own data.

    Args:
        name: one of `dataset_names`, a description file, or an identity's `dataset`.
        package: that provided it when a store was made, for the error; an identity names it itself.

    Raises ValueError, listing the valid names, for an unknown one; DatasetLayoutError for a description that
    cannot be used.
    """
    if not isinstance(name, str):
        described = description_of(name)
        if described is not None:
            ready = _ready_made(described.name)
            same = ready is not None and ready.content() == described.content()
            return OwnData(ready if ready is not None and same else described)
        package, name = name.get("package"), str(name["name"])
    found = plugins(GROUP, __name__)
    if is_description(name):
        described = read_description(name)
        if described.name in dataset_names():
            raise DatasetLayoutError(f"{name}: name: {described.name!r} is a data set; choose another name")
        return OwnData(described)
    if name not in found and (ready := _ready_made(name)) is not None:
        return OwnData(ready)
    if name not in found:
        raise ValueError(
            f"no data set {name!r}; available: {', '.join(dataset_names())}, or the path of a description "
            f"such as my.yaml for own data (`describe` writes one){missing_package(package)}"
            f"{did_you_mean(name, dataset_names())}"
        )
    return cast(DatasetModule, found[name].load())


def _ready_made(name: str) -> Description | None:
    path = ready_made_file(name)
    return None if path is None else read_description(path, ready_made=True)


def dataset_name(name: Named) -> str:
    """The name in the identity of its stores. Raises as `dataset_module`."""
    if not isinstance(name, str):
        return str(name["name"])
    return read_description(name).name if is_description(name) else name


def category_ids(dataset: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that annotation and results files have for classes, by label.

    Args:
        dataset: of a store's identity. Own data has the ids of its description; other data sets without ids
            of their own count from 1.
    """
    described = description_of(dataset)
    if described is not None:
        return described.class_numbers
    ids: Sequence[int] | None = getattr(dataset_module(dataset), "CATEGORY_IDS", None)
    return tuple(range(1, len(dataset["class_names"]) + 1)) if ids is None else tuple(ids)


def default_levels(name: Named) -> tuple[str, ...] | None:
    """The levels that a data set's stores keep by default; None: p2..p5, as far as the backbone has them."""
    levels: tuple[str, ...] | None = getattr(dataset_module(name), "DEFAULT_LEVELS", None)
    return levels


def default_window_rule(name: Named) -> WindowRule:
    """The window rule of Swin backbones on a data set: `cover` for classification, video and depth,
    `partition` for segmentation and detection, and where the data set's module does not say."""
    rule: WindowRule = getattr(dataset_module(name), "DEFAULT_WINDOW_RULE", "partition")
    return rule


def default_window(name: Named, recipe: ViewRecipe) -> int | None:
    """The windows of all Swin stages under `cover` on square views; None: those of the backbone."""
    sides: Sequence[int] = recipe.identity().get("scale_px") or ()
    windows: Mapping[int, int] = getattr(dataset_module(name), "DEFAULT_WINDOWS", {})
    return windows.get(sides[0]) if len(set(sides)) == 1 else None


def chosen_split(name: Named, split: str | None = None) -> str:
    """A split by its official name.

    Args:
        split: official, or a common name of it (train, val, validation, test) where one official name begins
            like it: of COCO `val` is val2017. None: the training split.

    Raises ValueError for an unknown one.
    """
    module = dataset_module(name)
    official = module.OFFICIAL_SPLITS
    chosen = split or str(module.TRAINING_SPLITS[0])
    if chosen in official:
        return chosen
    if chosen in COMMON_SPLITS:
        meant = [split for split in official if split.startswith(COMMON_SPLITS[chosen])]
        if len(meant) == 1:
            return meant[0]
    raise ValueError(
        f"{dataset_name(name)} has no split {chosen!r}; it has {', '.join(official)}"
        f"{did_you_mean(chosen, official)}"
    )


def first_test_split(name: Named) -> str:
    """The split that a data set's heads are evaluated on by default. Raises ValueError where it has none."""
    module = dataset_module(name)
    found = [split for split in module.OFFICIAL_SPLITS if split not in module.TRAINING_SPLITS]
    if not found:
        raise ValueError(
            f"{dataset_name(name)} has no split to test on: add one to `splits` of its description "
            f"(training splits: {', '.join(module.TRAINING_SPLITS)})"
        )
    return found[0]


def open_dataset(
    name: Named,
    data: str | Path | None = None,
    split: str | None = None,
    subset: str | None = None,
    *,
    stuff: str | None = None,
    boxes: str | Path | None = None,
) -> Dataset:
    """One split of a data set; lists its files and reads the headers of its images.

    Args:
        name: as of `dataset_module`.
        data: its folder, or tars as the module says; None: data/<official folder name>, of a description
            the folder that it names.
        split: official name of the split; None: the training split.
        subset: the records to fill, see stores.subsets; None: all.
        stuff: the kind of stuff maps that training rows hold too; None: none, or as an identity says.
        boxes: file of person boxes that test rows are of (extract.datasets.persons.box_file); None: the
            annotated ones.

    Raises:
        DatasetLayoutError: `data` does not hold the data set.
        ValueError: an unknown data set, split or subset.
        OSError: something could not be read.
    """
    module, chosen = dataset_module(name), chosen_split(name, split)
    where = data_folder(name, data)
    is_recorded = isinstance(module, OwnData) and not isinstance(name, str)
    if is_recorded and data is None and not Path(where).is_dir():
        raise DatasetLayoutError(
            f"{dataset_name(name)} is own data: pass --data, the folder that `data` of its description names "
            f"({where} does not exist)"
        )
    more: dict[str, Any] = _stuff_argument(name, module, chosen, stuff)
    if boxes is not None:
        more["boxes"] = _box_file(name, module, boxes)
    try:
        return module.open_dataset(where, chosen, subset, **more)
    except DatasetLayoutError as error:
        if isinstance(module, OwnData) or DESCRIBE in str(error):
            raise
        raise DatasetLayoutError(f"{error}; {DESCRIBE}") from error


def data_folder(name: Named, data: str | Path | None = None) -> str | Path:
    """Where the files of a data set are read: `data`, else below `data/`, or the folder of a description."""
    return data if data is not None else Path("data") / dataset_module(name).DEFAULT_FOLDER


def _box_file(name: Named, module: DatasetModule, boxes: str | Path) -> BoxFile:
    """Raises ValueError for data that has no boxes of persons."""
    if not getattr(module, "TAKES_BOXES", False):
        raise ValueError(f"--boxes {boxes}: {dataset_name(name)} has no keypoints of persons in boxes")
    return read_box_file(boxes, getattr(module, "CATEGORY_IDS", (1,)))


def _stuff_argument(name: Named, module: DatasetModule, split: str, stuff: str | None) -> dict[str, str]:
    """The keyword of a module's `open_dataset`; raises ValueError for maps that it does not have."""
    kind = stuff or (None if isinstance(name, str) else name.get("stuff"))
    if kind is None or isinstance(module, OwnData):  # whose description names them
        if stuff is not None:
            raise ValueError(
                f"--stuff {stuff}: a description names the folder of maps, as `stuff` of a split"
            )
        return {}
    kinds: tuple[str, ...] = getattr(module, "STUFF_MAPS", ())
    if kind not in kinds:
        there = f"it has {', '.join(kinds)}" if kinds else "it has none"
        raise ValueError(f"--stuff {kind}: {dataset_name(name)} has no such maps; {there}")
    if split not in module.TRAINING_SPLITS:
        raise ValueError(f"--stuff {kind}: heads learn from these maps, and {split} is a test split")
    return {"stuff": kind}


def view_recipe(
    dataset: Named,
    name: str,
    *,
    crop_size: CropSize | None = None,
    short_side: int | None = None,
    slide_stride: int | None = None,
    revision: int | None = None,
) -> ViewRecipe:
    """A data set's view recipe by name.

    Args:
        dataset: as of `dataset_module`.
        name: of its TRAINING_VIEWS or TEST_VIEWS.
        crop_size: of training views in pixels, multiples of 32: the side of a square, "HEIGHTxWIDTH" or
            (height, width); None: the paper's.
        short_side: short side at ratio 1 in pixels; None: the crop's size for training, the paper's for test.
        slide_stride: step of sliding windows in pixels; None: two thirds of the crop.
        revision: by which views are replayed (`extract.views.view.REVISIONS`); None: today's.

    Raises:
        ValueError: an unknown name, with all names; a size, a stride or a revision that a recipe cannot have.
    """
    recipes = dataset_module(dataset).VIEW_RECIPES
    if name not in recipes:
        raise ValueError(
            f"{dataset_name(dataset)} has no view recipe {name!r}; it has {', '.join(recipes)}"
            f"{did_you_mean(name, recipes)}"
        )
    recipe = recipes[name](None if crop_size is None else plain_size(crop_size), short_side)
    if slide_stride is not None:
        recipe = with_stride(recipe, slide_stride)
    return recipe if revision is None else of_revision(recipe, revision)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A split of a data set and the views of it, before any of its files is read."""

    dataset: str
    split: str
    recipe: ViewRecipe
    views: int | None
    """Views of each record; None: the recipe's own number."""
    levels: tuple[str, ...] | None
    """The levels that its stores keep by default; None: p2..p5, as far as the backbone has them."""


def choose(
    name: Named,
    split: str | None = None,
    *,
    views: int | str | None = None,
    recipe: str | None = None,
    crop_size: CropSize | None = None,
    short_side: int | None = None,
    slide_stride: int | None = None,
    revision: int | None = None,
) -> Choice:
    """The views that a user asks for, checked against the data set.

    Args:
        name: as of `dataset_module`.
        split: official name; None: the training split.
        views: of a training split their number (default 1), of a test split a name of TEST_VIEWS (default the
            first).
        recipe: a name of TRAINING_VIEWS (default the first); for training splits only.
        crop_size, short_side, slide_stride, revision: as of `view_recipe`.

    Raises ValueError for an unknown data set, split or recipe, a bad number or size, and views of the other
    kind of split.
    """
    module, chosen = dataset_module(name), chosen_split(name, split)
    if chosen in module.TRAINING_SPLITS:
        as_in_tests: Mapping[str, str] = getattr(module, "TEST_VIEWS_OF_TRAINING", {})
        if recipe is None and views in as_in_tests:
            recipe, views = as_in_tests[str(views)], None
        if isinstance(views, str) or (views is not None and views < 1):
            raise ValueError(
                f"--views {views}: {chosen} is a training split, whose views are drawn by seed: pass their "
                f"number, from 1 ({' and '.join(module.TEST_VIEWS)} are views of test splits)"
            )
        recipe_name, count = recipe or module.TRAINING_VIEWS[0], views or 1
        if recipe_name not in module.TRAINING_VIEWS:
            raise ValueError(
                f"--view-recipe {recipe_name}: {dataset_name(name)} has {', '.join(module.TRAINING_VIEWS)}"
            )
    else:
        if recipe is not None:
            raise ValueError(f"--view-recipe {recipe}: {chosen} is a test split; --views names its views")
        if views is not None and views not in module.TEST_VIEWS:
            raise ValueError(
                f"--views {views}: {chosen} is a test split: pass {' or '.join(module.TEST_VIEWS)} (a "
                f"number of views is for training splits)"
            )
        recipe_name, count = str(views or module.TEST_VIEWS[0]), None
    chosen_recipe = view_recipe(
        *(name, recipe_name),
        crop_size=crop_size,
        short_side=short_side,
        slide_stride=slide_stride,
        revision=revision,
    )
    return Choice(
        dataset=dataset_name(name),
        split=chosen,
        recipe=chosen_recipe,
        views=count,
        levels=getattr(module, "DEFAULT_LEVELS", None),
    )
