"""What every data set and every layout of own data promises, on the tiny set it writes.

A new data set, ready-made description or file of `descriptions` needs no test code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from extract.backbones.loading import FrozenBackbone, backbone_card, load_backbone
from extract.datasets import (
    DatasetLayoutError,
    choose,
    chosen_split,
    dataset_module,
    dataset_name,
    dataset_names,
    default_levels,
    first_test_split,
    open_dataset,
    view_recipe,
)
from extract.datasets.contract import Dataset
from extract.datasets.own.description import LAYOUTS
from extract.planning.dataset_identity import has_truth
from extract.views.recipes import ViewRecipe, views_of
from heads import build_head, head_names
from pipelines.cli.arguments import parse
from pipelines.config import TrainConfig
from pipelines.tasks import task_info, task_names, task_of
from pipelines.tasks.contract import targets_there
from pipelines.training.data_settings import settings_of_data
from pipelines.verbs import train_head
from stores.format.targets import DenseTarget
from stores.reading.reader import open_store
from tests.extract.extractor.extraction import run
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file

RECORDS = 4
VIEW_PX = 64

DESCRIPTIONS = sorted(str(path) for path in Path(__file__).with_name("descriptions").glob("*.yaml"))
"""Of own data: at least one of each layout."""
NAMES = [*dataset_names(), *DESCRIPTIONS]
ALIKE = {"cityscapes-trainids", "coco-stuff", "voc2007", "voc2012", "voc2012-boxes"}
ALIKE |= {"k600", "k700", "ssv2", "own-video-list"}
ALIKE |= {"kitti_depth"}
ALIKE |= {"own-instances", "own-offset", "own-labels", "own-photographs", "own-tars"}
"""Of a layout and task that another one stands for: not trained on again."""

every_dataset = pytest.mark.parametrize("name", NAMES, ids=lambda name: Path(name).stem)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name in NAMES:
        found[name] = tmp_path_factory.mktemp(Path(name).stem)
        dataset_module(name).write_sample(found[name], RECORDS, np.random.default_rng(0))
    return found


@pytest.fixture(scope="module")
def backbones() -> dict[str, FrozenBackbone]:
    return {
        name: load_backbone(backbone_card("swinv2-nano", {}, default_levels(name)), "random:0")
        for name in NAMES
        if Path(name).stem not in ALIKE
    }


def splits(name: str, folders: dict[str, Path]) -> list[Dataset]:
    return [open_dataset(name, folders[name], split) for split in dataset_module(name).OFFICIAL_SPLITS]


@every_dataset
def test_names_of_splits_and_views(name: str) -> None:
    module = dataset_module(name)
    assert set(module.TRAINING_SPLITS) < set(module.OFFICIAL_SPLITS) and module.DEFAULT_FOLDER
    assert first_test_split(name) not in module.TRAINING_SPLITS
    assert {*module.TRAINING_VIEWS, *module.TEST_VIEWS} == set(module.VIEW_RECIPES)
    assert all(view_recipe(name, views).fixed_count is None for views in module.TRAINING_VIEWS)
    assert view_recipe(name, module.TEST_VIEWS[0]).fixed_count is not None
    for split in module.OFFICIAL_SPLITS:
        assert choose(name, split).dataset == dataset_name(name)


@every_dataset
def test_every_split_of_the_sample_is_listed(name: str, folders: dict[str, Path]) -> None:
    for dataset in splits(name, folders):
        keys = [record.key for record in dataset.records]
        assert keys == sorted(set(keys)) and len(keys) == RECORDS
        assert dataset.name == dataset_name(name) and dataset.task in task_names()
        assert dataset.num_classes == len(dataset.class_names) >= task_info(dataset.task).has_classes
        assert dataset.is_training == (dataset.split in dataset_module(name).TRAINING_SPLITS)
        for index, record in enumerate(dataset.records):
            assert len(dataset.read_source(index)) == record.source_bytes > 0
            assert min(record.original_hw) > 1
        digest = dataset.annotation_digest
        assert len(digest) == 64
        assert digest == open_dataset(name, folders[name], dataset.split).annotation_digest


@every_dataset
def test_a_sample_follows_from_its_generator(name: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    dataset_module(name).write_sample(tmp_path, RECORDS, np.random.default_rng(0))
    files = [p.relative_to(tmp_path) for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    assert files and all((tmp_path / p).read_bytes() == (folders[name] / p).read_bytes() for p in files)


@every_dataset
def test_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises((DatasetLayoutError, FileNotFoundError), match=str(tmp_path)):
        open_dataset(name, tmp_path)
    with pytest.raises(ValueError, match=f"{dataset_name(name)} has no split 'nowhere'"):
        open_dataset(name, tmp_path, "nowhere")


def test_every_layout_of_own_data_is_here() -> None:
    described = {dataset_module(name).description.layout for name in DESCRIPTIONS}  # type: ignore[attr-defined]
    assert described == set(LAYOUTS)


@every_dataset
def test_views_and_targets(name: str, folders: dict[str, Path]) -> None:
    """Of every recipe: uint8 RGB of the planned size, equal when replayed, with the planned targets."""
    module = dataset_module(name)
    for dataset in splits(name, folders):
        task, record = task_of(dataset.task), dataset.records[0]
        truth, data = dataset.read_truth(0), dataset.read_source(0)
        for recipe_name in module.TRAINING_VIEWS if dataset.is_training else module.TEST_VIEWS:
            sizes = {"crop_size": VIEW_PX} if dataset.is_training else {"short_side": VIEW_PX}
            recipe = view_recipe(name, recipe_name, **sizes)
            count = views_of(recipe, record, recipe.fixed_count or 2)
            views = [recipe.view(dataset.name, record, number, 0, truth) for number in range(count)]
            rendered = dataset.media.render(data, record, views)
            planned = dataset.target_specs(not dataset.is_training, _params(dataset, recipe))
            specs = {spec.name: spec for spec in planned}
            needed = task.training_targets if dataset.is_training else task.test_targets
            needed = needed if has_truth(dataset) else ()
            assert set(targets_there(task, needed, specs)) <= set(specs)
            for view, pixels in zip(views, rendered, strict=True):
                frames = () if recipe.frames is None else (recipe.frames,)
                assert pixels.dtype == np.uint8 and pixels.shape == (*frames, *view.padded_hw, 3)
                assert all(side % 32 == 0 for side in view.padded_hw)
                assert all(1 <= v <= p for v, p in zip(view.valid_hw, view.padded_hw, strict=True))
                again = dataset.media.view_from_params(view.to_params())
                assert np.array_equal(dataset.media.render(data, record, [again])[0], pixels)
                targets = dataset.targets(truth, view)
                assert set(specs) <= set(targets)
                for target, spec in specs.items():
                    array = np.asarray(targets[target])
                    assert array.dtype == np.dtype(spec.dtype)
                    if isinstance(spec, DenseTarget):
                        shape = spec.row_shape(*view.padded_hw)
                    else:
                        assert array.nbytes <= spec.cap_bytes
                        shape = spec.row_shape(record.original_hw, array.nbytes)
                    assert array.shape == shape, target


@pytest.mark.parametrize(
    "name", [name for name in NAMES if Path(name).stem not in ALIKE], ids=lambda n: Path(n).stem
)
def test_extracted_and_trained_for_a_step(
    name: str, folders: dict[str, Path], backbones: dict[str, FrozenBackbone], tmp_path: Path
) -> None:
    """By the plainest head: the one with the fewest parameters that the store's levels and targets allow."""
    dataset = open_dataset(name, folders[name])
    path, summary = run(dataset, tmp_path / "stores", backbones[name], views=1)
    assert summary.rows_written == RECORDS and not summary.skipped
    with open_store(path) as store:
        assert sorted(store.keys) == [record.key for record in dataset.records]
        recorded = store.identity["dataset"]
        assert recorded["name"] == dataset.name and "package" not in recorded
        features = store.read_features(range(RECORDS))
        assert all(np.isfinite(x).all() and x.std() > 0 for x in features.values())
        pyramid, offered = store.pyramid, set(store.targets)
    head = min(
        (head for head in head_names(dataset.task) if _learns_from(head, recorded, pyramid, offered)),
        key=lambda head: sum(parameter.numel() for parameter in _built(head, recorded, pyramid).parameters()),
    )
    words = ["--head", head, "--store", str(path), "--stores", str(path.parent), "--device", "cpu"]
    words += ["--run", str(tmp_path / "run"), "--max-steps", "1", "--batch-size", "2", "--val-every", "0"]
    trained = train_head.run(parse(TrainConfig, words))
    assert trained["steps"] == 1 and np.isfinite(trained["loss"])


def _params(dataset: Dataset, recipe: ViewRecipe) -> list[npt.NDArray[np.float64]]:
    """The parameters of every record's views, as a plan gathers them."""
    found = []
    for index, record in enumerate(dataset.records):
        truth = dataset.read_truth(index)
        count = views_of(recipe, record, recipe.fixed_count or 2)
        views = [recipe.view(dataset.name, record, number, 0, truth) for number in range(count)]
        found.append(np.stack([view.to_params() for view in views]))
    return found


def _learns_from(head: str, dataset: Mapping[str, Any], pyramid: Any, offered: set[str]) -> bool:
    try:
        return set(_built(head, dataset, pyramid).target_names) <= offered
    except ValueError:  # of levels that the store lacks
        return False


def _built(head: str, dataset: Mapping[str, Any], pyramid: Any) -> Any:
    """On no device, as train-head would build it: without masks where there are none."""
    settings = settings_of_data(TrainConfig(head=head), dataset).head_settings
    with torch.device("meta"):
        return build_head(head, dataset["task"], pyramid, dataset["num_classes"], **settings)


@pytest.mark.parametrize(
    "name", [name for name in dataset_names() if name not in ("voc2007", "nyudepthv2", "kitti_depth")]
)
def test_common_names_of_splits(name: str) -> None:
    """As people say them: of each kind the one official split whose name begins so. VOC 2007 has trainval,
    data sets of depth have a test split."""
    official = dataset_module(name).OFFICIAL_SPLITS
    for common, begins in (("train", "train"), ("val", "val"), ("validation", "val")):
        assert chosen_split(name, common).startswith(begins)
        assert chosen_split(name, common) in official
