"""Own classification data: class folders, lists, json and tars; what `describe` finds and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from extract.datasets import choose, dataset_module, default_window_rule, open_dataset
from extract.datasets.own.describing.describe_folder import describe_folder, description_text
from extract.datasets.own.description_file import read_description
from extract.planning.dataset_identity import own_description
from extract.sources.record import DatasetLayoutError
from tests.extract.datasets.made_own import write_description, write_masks
from tests.extract.datasets.made_photos import DESCRIPTIONS, WRITERS, write_folders, write_photo, write_tars

SPLITS = {"train": 6, "test": 4}
every_layout = pytest.mark.parametrize("layout", DESCRIPTIONS)


def described(folder: Path, layout: str, edit: Callable[[str], str] = lambda text: text) -> str:
    if not (folder / "data").exists():
        WRITERS[layout](folder / "data", SPLITS)
    return str(write_description(folder / "my.yaml", edit(DESCRIPTIONS[layout])))


def names_of(dataset) -> list[str]:
    return [dataset.class_names[dataset.read_truth(i)] for i in range(len(dataset.records))]


@every_layout
def test_records_and_labels(layout: str, tmp_path: Path) -> None:
    """A record's class is that of its colour, in every layout."""
    name = described(tmp_path, layout)
    for split, count in SPLITS.items():
        dataset = open_dataset(name, split=split)
        assert dataset.task == "classification" and dataset.name == "pets"
        assert len(dataset.records) == count and dataset.is_training == (split == "train")
        assert {record.original_hw for record in dataset.records} == {(48, 64)}
        for index, record in enumerate(dataset.records):
            view = choose(name, split, crop_size=32).recipe.view(dataset.name, record, 0, 0)
            red, _, blue = dataset.media.render(dataset.read_source(index), record, [view])[0].mean((0, 1))
            assert names_of(dataset)[index] == ("cat" if red > blue else "red fox")


@every_layout
def test_an_identity_holds_what_is_needed_to_read_again(layout: str, tmp_path: Path) -> None:
    dataset = open_dataset(described(tmp_path, layout), split="test")
    identity = {"name": "pets", "class_names": list(dataset.class_names), **own_description(dataset)}
    again = open_dataset(json.loads(json.dumps(identity)), tmp_path / "data", "test")
    assert again.annotation_digest == dataset.annotation_digest and names_of(again) == names_of(dataset)
    assert again.description == dataset.description


@pytest.mark.parametrize("layout", [layout for layout in DESCRIPTIONS if layout != "list"])
def test_describe_recognises(layout: str, tmp_path: Path) -> None:
    data = WRITERS[layout](tmp_path / "data", SPLITS)
    text = description_text(describe_folder(data), data, tmp_path / "my.yaml")
    (tmp_path / "my.yaml").write_text(text)
    found = read_description(tmp_path / "my.yaml")
    assert found.layout == layout and set(found.class_names) == {"cat", "red fox"}
    assert set(found.splits) == {"train", "test"} and found.training == ("train",)
    dataset = open_dataset(str(tmp_path / "my.yaml"), split="train")
    assert sorted(names_of(dataset)) == ["cat"] * 3 + ["red fox"] * 3


def test_names_of_folders(tmp_path: Path) -> None:
    """A mapping gives folders other names; the order is that of the description."""
    name = described(
        tmp_path, "imagefolder", lambda t: t.replace("[cat, red fox]", "{red fox: Vulpes, cat: Felis}")
    )
    dataset = open_dataset(name)
    assert dataset.class_names == ("Vulpes", "Felis")
    assert own_description(dataset)["description"]["labels"] == ["red fox", "cat"]
    assert dataset.records[0].key == "cat/more/p002" and dataset.read_truth(0) == 1


def test_views_and_windows(tmp_path: Path) -> None:
    name = described(tmp_path, "imagefolder")
    assert default_window_rule(name) == "cover"
    assert choose(name).recipe.name == "probe" and choose(name, "test").recipe.name == "single"
    as_tested = choose(name, views="single").recipe
    assert as_tested.name == "centre" and as_tested.fixed_count is None
    assert {**as_tested.identity(), "recipe": "single"} == choose(name, "test").recipe.identity()
    with pytest.raises(ValueError, match="--views ms-flip: train is a training split"):
        choose(name, views="ms-flip")


@pytest.mark.parametrize(
    ("layout", "edit", "message"),
    [
        (
            "imagefolder",
            lambda text: text.replace("[cat, red fox]", "[cat]"),
            r"train/red fox holds images and is none of the 1 `classes` of pets: add it there",
        ),
        (
            "imagefolder",
            lambda text: text.replace("train: {images: train}", "train: {images: fotos}"),
            r"split train of pets: looked for fotos/<class>/\*\.jpg .*, found none; .*fotos does not exist",
        ),
        (
            "imagefolder",
            lambda text: text.replace("[cat, red fox]", "[cat, cat]"),
            "classes: 'cat' twice",
        ),
        ("imagefolder", lambda text: text.replace("[cat, red fox]", "3"), "classes: 3, expected 1 to 100000"),
        ("list", lambda text: text.replace("train.txt", "no.txt"), r"looked for the list .*no\.txt"),
        (
            "inat-json",
            lambda text: text.replace("{9: cat, 4: red fox}", "{9: cat}"),
            "has category 4, the description no such id",
        ),
        (
            "image-tars",
            lambda text: text.replace("train-{000..000}.tar", "no"),
            r"looked for tars of samples \(key\.jpg, key\.cls\) in no, found none",
        ),
        (
            "image-tars",
            lambda text: text.replace("data: data", "data: data\noffset: 1"),
            "offset: unknown key",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    layout: str, edit: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetLayoutError, match=message):
        open_dataset(described(tmp_path, layout, edit), split="train")


def test_folders_may_be_left_out(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        return text.replace("[cat, red fox]", "[cat]") + "leave_out: red fox\n"

    dataset = open_dataset(described(tmp_path, "imagefolder", edit))
    assert len(dataset.records) == 3 and dataset.description["leave_out"] == ["red fox"]


def test_lists_as_people_write_them(tmp_path: Path) -> None:
    """A header, names instead of numbers, paths without ending, labels left to the folder."""
    name, data = described(tmp_path, "list"), tmp_path / "data"
    write_photo(data / "photos/red fox/a b.jpg", 1)
    (data / "train.txt").write_text(
        "file,label\nphotos/p000.jpg,cat\n# a comment\nphotos/p001,red fox\nphotos/p003.jpg,lion\n"
    )
    dataset = open_dataset(name)
    assert [record.key for record in dataset.records] == ["photos/p000", "photos/p001", "photos/p003"]
    assert [dataset.read_truth(i) for i in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="label 'lion' is none of the 2 classes"):
        dataset.read_truth(2)
    described(tmp_path, "list", lambda text: text.replace("train.txt", "train.txt, images: photos"))
    (data / "train.txt").write_text("red fox/a b.jpg\n")
    assert names_of(open_dataset(name)) == ["red fox"]
    (data / "train.txt").write_text("../a.jpg 0\n")
    with pytest.raises(DatasetLayoutError, match=r"line 1: '\.\./a\.jpg', expected a path below"):
        open_dataset(name)


def test_odd_files_are_counted(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", SPLITS)
    write_photo(data / "train/loose.jpg", 0)
    (data / "train/cat/notes.doc").write_text("")
    write_photo(data / "train/dog/d.jpg", 0)
    draft = describe_folder(data)
    assert draft.odd == [
        "test has no images of dog",
        "1 images beside the class folders of train: loose.jpg",
        "files of other kinds: 1 of .doc",
    ]
    assert "train: 7 images in 3 class folders, 1 to 3 each; pixels 64x48" in draft.found


def test_tars_that_are_read_are_no_odd_files(tmp_path: Path) -> None:
    data = write_tars(tmp_path / "data", SPLITS)
    (data / "broken.tar").write_bytes(b"no tar")
    draft = describe_folder(data)
    assert draft.odd == ["files of other kinds: 1 of .tar"]
    assert "train: 6 images of 2 labels in 1 tar" in draft.found


def test_without_splits(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", {"train": 4}) / "train"
    draft = describe_folder(data)
    assert draft.splits == {"train": {"images": ["."]}} and "a split to test on" in draft.open[0]
    assert describe_folder(data.parent / ".").splits == {"train": {"images": ["train"]}}
    assert describe_folder(write_masks(tmp_path / "masks", {"train": 2, "test": 2})).layout == "masks"


def test_real_photographs_are_recognised(samples: Path, tmp_path: Path) -> None:
    folder = samples / "own/imagenette_small"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    out = tmp_path / "photos.yaml"
    out.write_text(description_text(describe_folder(folder), folder, out))
    found = dataset_module(str(out)).description
    assert found.class_names[:3] == ("tench", "English springer", "cassette player")
    assert found.labels[0] == "n01440764" and list(found.splits) == ["train", "val"]
    dataset = open_dataset(str(out), split="val")
    assert len(dataset.records) == 200 and names_of(dataset)[:20] == ["tench"] * 20
