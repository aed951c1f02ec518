"""The demo of COCO: its scenes are exact and official, the whole path runs in small, and the figures hold."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from extract.datasets import open_dataset
from extract.datasets.coco import CATEGORIES, CATEGORY_IDS, CLASS_NAMES
from pipelines.config import DemoConfig
from pipelines.demo.ade20k import DemoSize
from pipelines.demo.coco import fill_stores, make_things, run_coco_demo, train_and_measure
from pipelines.demo.made.scenes import make_scene
from pipelines.demo.made.thing_files import write_thing_split
from pipelines.demo.made.things import OUTLINES, SIDES_PX, make_thing_scene
from pipelines.demo.steps import DemoStores, Training
from pipelines.errors import UsageError
from pipelines.feed.joined_stores import JoinedStores

TINY = DemoSize(training_scenes=6, validation_scenes=3, views=1, max_steps=2)
SEEDS = (0, 1, 2)


def digest(split: str, number: int) -> str:
    return hashlib.sha256(make_thing_scene(split, number).rgb.tobytes()).hexdigest()


def test_a_scene_follows_from_its_split_and_number_and_is_in_no_other_split() -> None:
    digests = {split: [digest(split, number) for number in range(20)] for split in ("train2017", "val2017")}
    assert digests["val2017"][5] == digest("val2017", 5)
    assert len({*digests["train2017"], *digests["val2017"]}) == 40
    pretrained = {hashlib.sha256(make_scene("pretrain", n).rgb.tobytes()).hexdigest() for n in range(20)}
    assert not pretrained & {*digests["train2017"], *digests["val2017"]}


def test_scenes_vary() -> None:
    scenes = [make_thing_scene("val2017", number) for number in range(60)]
    assert {side for scene in scenes for side in scene.rgb.shape[:2]} == set(SIDES_PX)
    names = [thing.name for scene in scenes for thing in scene.things]
    assert {*names} == set(OUTLINES) <= set(CLASS_NAMES)
    assert min(names.count(name) for name in OUTLINES) > 0.08 * len(names)
    assert any(not scene.things for scene in scenes)
    assert any(thing.crowd for scene in scenes for thing in scene.things)
    assert all(thing.mask.sum() >= 40 for scene in scenes for thing in scene.things)


def test_things_do_not_cover_each_other() -> None:
    for number in range(30):
        scene = make_thing_scene("train2017", number)
        covered = np.zeros(scene.rgb.shape[:2], int)
        for thing in scene.things:
            covered += thing.mask
        assert covered.max() <= 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thing_split(tmp_path_factory.mktemp("data"), "val2017", 24, CATEGORY_IDS, CLASS_NAMES)


def test_the_files_are_official_and_the_masks_exact(data: Path) -> None:
    coco = COCO(str(data / "annotations" / "instances_val2017.json"))
    assert {each["id"]: each["name"] for each in coco.loadCats(coco.getCatIds())} == CATEGORIES
    assert len(coco.imgs) == 24
    kinds = set()
    for number, (image_id, image) in enumerate(sorted(coco.imgs.items())):
        scene = make_thing_scene("val2017", number)
        assert (image["height"], image["width"]) == scene.rgb.shape[:2]
        annotations = coco.imgToAnns[image_id]
        assert len(annotations) == len(scene.things)
        for annotation, thing in zip(annotations, scene.things, strict=True):
            kinds.add((annotation["iscrowd"], type(annotation["segmentation"])))
            assert np.array_equal(coco.annToMask(annotation).astype(bool), thing.mask)
            assert CATEGORIES[annotation["category_id"]] == thing.name
            rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
            size = [columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            assert annotation["bbox"] == [columns[0], rows[0], *size]
            assert annotation["area"] == thing.mask.sum()
    assert kinds == {(0, list), (1, dict)}


def test_the_data_set_takes_them(data: Path) -> None:
    dataset = open_dataset("coco", data, "val2017")
    scenes = [make_thing_scene("val2017", number) for number in range(24)]
    truths = [dataset.read_truth(index) for index in range(24)]
    assert [len(truth) for truth in truths] == [len(scene.things) for scene in scenes]
    assert not any(truth.skipped for truth in truths)
    with Image.open(data / "val2017" / f"{dataset.records[3].key}.jpg") as image:
        stored = np.asarray(image.convert("RGB"), np.int16)
    assert np.abs(stored.mean(2) - scenes[3].rgb.mean(2)).mean() < 4


def test_files_are_written_once(tmp_path: Path) -> None:
    folder = write_thing_split(tmp_path, "train2017", 2, CATEGORY_IDS, CLASS_NAMES)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert len(files) == 3
    write_thing_split(tmp_path, "train2017", 2, CATEGORY_IDS, CLASS_NAMES)
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    write_thing_split(tmp_path, "train2017", 3, CATEGORY_IDS, CLASS_NAMES)
    assert len(json.loads((folder / "annotations/instances_train2017.json").read_text())["images"]) == 3


@pytest.mark.ci
def test_the_whole_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "demo"
    found = run_coco_demo(DemoConfig(dataset="coco", run=str(root), head="fpn"), TINY)
    last = capsys.readouterr().out.splitlines()[-1]
    number = r"-?\d+\.\d\d"
    assert re.fullmatch(
        rf"box AP {number} mask AP {number} \(single\) fpn, AP50 {number} and {number}, 3 held-out scenes",
        last,
    )
    run = Path(found["run"])
    assert {path.name for path in run.iterdir()} >= {
        *("results-bbox.json", "results-segm.json", "classes.csv", "evaluate.json", "detections.png")
    }
    with (run / "classes.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(CLASS_NAMES)
    with Image.open(root / "detections.png") as picture:
        assert min(picture.size) > 600


def test_an_unknown_head_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bifpn1"):
        run_coco_demo(DemoConfig(dataset="coco", run=str(tmp_path / "demo"), head="linear"), TINY)
    assert not (tmp_path / "demo").exists()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoStores]:
    root = tmp_path_factory.mktemp("coco")
    return root, fill_stores(make_things(root / "data", DemoSize()), root / "features", DemoSize())


@pytest.mark.slow
def test_held_out_things_are_found(full: tuple[Path, DemoStores]) -> None:
    root, stores = full
    scores = [train_and_measure("bifpn1", stores, root / "runs", Training(seed=seed)) for seed in SEEDS]
    for seed, score in zip(SEEDS, scores, strict=True):
        shares = (score.box_ap50, score.mask_ap50, score.box_ap, score.mask_ap)
        shown = "box AP50 {:.2f} mask AP50 {:.2f} box AP {:.2f} mask AP {:.2f}".format(
            *(100 * s for s in shares)
        )
        print(f"\nFIGURE seed {seed}: {shown}, {score.seconds:.0f} s")
    assert np.mean([score.box_ap50 for score in scores]) > 0.5
    assert np.mean([score.mask_ap50 for score in scores]) > 0.4


@pytest.mark.slow
def test_features_of_other_rows_teach_nothing(
    full: tuple[Path, DemoStores], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same training with every row's targets beside another row's features."""
    root, stores = full
    with_right_ones = JoinedStores.read_targets

    def of_another_row(self: JoinedStores, rows, names):
        elsewhere = np.random.default_rng(0).permutation(len(self))
        return with_right_ones(self, elsewhere[rows], names)

    monkeypatch.setattr(JoinedStores, "read_targets", of_another_row)
    score = train_and_measure("bifpn1", stores, root / "runs")
    print(
        f"\nFIGURE shuffled rows: box AP50 {100 * score.box_ap50:.2f} mask AP50 {100 * score.mask_ap50:.2f}"
    )
    assert score.box_ap50 < 0.05
    assert score.mask_ap50 < 0.05
