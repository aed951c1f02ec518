"""What makes a data set: which files are records, whatever their endings, links, names and archives."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from extract.datasets import Dataset, DatasetLayoutError, open_dataset
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.sources.tar_index import HostileTarError
from stores.format.row_table import UNDECODABLE
from tests.extract.datasets.made_ade20k import make_pairs, write_folder, write_tar
from tests.extract.datasets.made_coco import write_folder as write_coco
from tests.extract.datasets.made_k400 import made_frames, video_bytes, write_clips

CLIP = video_bytes(made_frames(0, 4))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path, training=4, validation=1)


def folders(root: Path) -> tuple[Path, Path]:
    return root / "images" / "training", root / "annotations" / "training"


def keys(dataset: Dataset) -> list[str]:
    return [record.key for record in dataset.records]


def tar_of(root: Path, path: Path, count: int) -> Path:
    images, annotations = folders(root)
    members = []
    for image in sorted(images.iterdir())[:count]:
        members.append((image.name, image.read_bytes()))
        members.append((f"{image.stem}.png", (annotations / f"{image.stem}.png").read_bytes()))
    return write_tar(path, members)


def test_the_official_folders_come_before_tars_and_both_are_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = keys(open_dataset("ade20k", root))
    for where in (root, root.parent):
        tar_of(root, where / "my_training_backup.tar", 1)
        caplog.clear()
        assert keys(open_dataset("ade20k", where)) == expected
        if where == root:
            assert "official folders and 1 tar (my_training_backup.tar): the folders are read" in caplog.text
    assert len(keys(open_dataset("ade20k", root / "my_training_backup.tar"))) == 1  # asked for by name


def test_every_data_set_prefers_its_official_folders(tmp_path: Path) -> None:
    coco = write_coco(tmp_path, train=4, val=1)
    write_tar(coco / "train2017.tar", [("train2017/000000000001.jpg", b"x")])
    assert len(open_dataset("coco", coco).records) == 3
    clips = tmp_path / "clips"
    write_clips(clips, "train", [("a", "zumba", CLIP), ("b", "archery", CLIP)])
    write_tar(clips / "old_train.tar", [("c.mp4", CLIP), ("c.txt", b"zumba")])
    assert len(open_dataset("k400", clips).records) == 2


def test_an_archive_of_folders_is_named_as_one(root: Path, tmp_path: Path) -> None:
    """The folder's own archive, not unpacked."""
    images, annotations = folders(root)
    members = [(f"images/training/{path.name}", path.read_bytes()) for path in images.iterdir()]
    members += [(f"annotations/training/{path.name}", path.read_bytes()) for path in annotations.iterdir()]
    write_tar(tmp_path / "tars" / "training.tar", members)
    with pytest.raises(HostileTarError, match=r"images/training and annotations/training: .*unpack it"):
        open_dataset("ade20k", tmp_path / "tars")
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "ADEChallengeData2016.zip").touch()
    with pytest.raises(DatasetLayoutError, match=r"ADEChallengeData2016\.zip would have to be unpacked"):
        open_dataset("ade20k", tmp_path / "zips")


@pytest.mark.parametrize("name", ["ade20k", "coco", "k400"])
def test_empty_tars_and_tars_without_samples_are_named(tmp_path: Path, name: str) -> None:
    split = {"ade20k": "training", "coco": "train2017", "k400": "train"}[name]
    empty = write_tar(tmp_path / f"{split}-000.tar", [])
    with pytest.raises(DatasetLayoutError, match=rf"{split}-000\.tar is an empty tar"):
        open_dataset(name, tmp_path)
    empty.unlink()
    write_tar(tmp_path / f"{split}-001.tar", [("README", b"hello"), (".hidden.jpg", b"x")])
    with pytest.raises(DatasetLayoutError, match=rf"{split}-001\.tar: no samples"):
        open_dataset(name, tmp_path)


def test_tars_are_found_whatever_the_case_of_their_names(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    tar_of(root, folder / "Training-000.TAR", 3)
    (folder / "._Training-000.TAR").write_bytes(b"\0\5\x16\7")
    assert len(open_dataset("ade20k", folder).records) == 3
    assert len(open_dataset("ade20k", folder / "Training-000.TAR").records) == 3


def test_endings_count_in_any_case_and_every_kind_of_image_is_a_record(root: Path) -> None:
    expected = keys(open_dataset("ade20k", root))
    images, annotations = folders(root)
    first, second, third, fourth = sorted(images.iterdir())
    first.rename(first.with_suffix(".JPG"))
    second.rename(second.with_suffix(".jpeg"))
    Image.open(third).save(third.with_suffix(".PNG"))
    third.unlink()
    Image.open(fourth).save(fourth.with_suffix(".tif"))
    fourth.unlink()
    label_map = annotations / f"{first.stem}.png"
    label_map.rename(label_map.with_suffix(".PNG"))
    dataset = open_dataset("ade20k", root)
    assert keys(dataset) == expected and not dataset.unusable_records
    assert all(dataset.read_truth(index).shape == dataset.records[index].original_hw for index in range(4))


def test_files_of_other_endings_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, _ = folders(root)
    for name in ("a.heic", "b.HEIC", "Thumbs.db"):
        (images / name).write_bytes(b"x")
    assert len(open_dataset("ade20k", root).records) == 4
    assert "files of other endings are left out: 2 of .heic" in caplog.text


def test_hidden_twins_are_no_records(root: Path) -> None:
    expected = keys(open_dataset("ade20k", root))
    images, annotations = folders(root)
    for path in [*images.iterdir(), *annotations.iterdir()]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(200))
    (images / ".ADE_train_00000009.jpg").write_bytes(b"x")
    assert keys(open_dataset("ade20k", root)) == expected
    for path in annotations.iterdir():
        if path.name.startswith("._"):
            path.unlink()
    assert keys(open_dataset("ade20k", root)) == expected  # twins of images alone


def test_hidden_twins_of_clips_are_no_clips(tmp_path: Path) -> None:
    write_clips(tmp_path, "train", [("a", "zumba", CLIP)])
    (clip,) = (tmp_path / "videos" / "zumba").iterdir()
    (clip.parent / f"._{clip.name}").write_bytes(b"x")
    (tmp_path / "videos" / ".trash").mkdir()
    (tmp_path / "videos" / ".trash" / clip.name).write_bytes(b"x")
    assert len(open_dataset("k400", tmp_path).records) == 1


def test_orphans_of_both_kinds_are_records_that_are_skipped(root: Path) -> None:
    images, annotations = folders(root)
    names = sorted(path.stem for path in images.iterdir())
    (annotations / f"{names[0]}.png").unlink()
    (images / f"{names[1]}.jpg").unlink()
    (images / f"{names[2]}.jpg").unlink()
    (images / f"{names[2]}.jpg").symlink_to(root / "nowhere.jpg")
    dataset = open_dataset("ade20k", root)
    assert keys(dataset) == names
    assert dataset.unusable_records == {
        names[0]: "its label map is missing",
        names[1]: "its image is missing",
        names[2]: f"its image {names[2]}.jpg is a link to nothing",
    }
    assert dataset.read_annotation(0) == b""
    with pytest.raises(SourceError, match="its label map is missing") as caught:
        dataset.read_truth(0)
    assert caught.value.code == BAD_TARGET
    for index in (1, 2):
        assert dataset.records[index].original_hw == dataset.read_truth(index).shape
        with pytest.raises(SourceError, match="its image") as caught:
            dataset.read_source(index)
        assert caught.value.code == UNDECODABLE
    assert len(dataset.annotation_digest) == 64


def test_orphans_in_tars_are_the_same(root: Path, tmp_path: Path) -> None:
    pairs = sorted(make_pairs(3, "training").items())
    members = [(f"{key}.jpg", jpg) for key, (jpg, _) in pairs[:2]]
    members += [(f"{key}.png", png) for key, (_, png) in pairs[1:]]
    tar = write_tar(tmp_path / "a.tar", members)
    assert open_dataset("ade20k", tar).unusable_records == {
        pairs[0][0]: "its label map is missing",
        pairs[2][0]: "its image is missing",
    }


def test_folders_of_other_names_are_no_data_set(root: Path) -> None:
    _, annotations = folders(root)
    for path in list(annotations.iterdir()):
        path.rename(annotations / f"label_{path.name}")
    with pytest.raises(DatasetLayoutError, match="none of the 4 images has a label map of its name"):
        open_dataset("ade20k", root)


def test_two_files_of_one_record_are_named(root: Path) -> None:
    images, _ = folders(root)
    first = sorted(images.iterdir())[0]
    Image.open(first).save(first.with_suffix(".png"))
    with pytest.raises(DatasetLayoutError, match=rf"{first.stem}.jpg and {first.stem}.png; keep one"):
        open_dataset("ade20k", root)


def renamed_as_latin1(path: Path) -> None:
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9" + os.fsencode(path.suffix))


def test_names_that_are_not_utf8_are_named(root: Path, tmp_path: Path) -> None:
    _, annotations = folders(root)
    renamed_as_latin1(sorted(annotations.iterdir())[0])
    with pytest.raises(DatasetLayoutError, match=r"annotations/training: the name b'caf\\xe9\.png'"):
        open_dataset("ade20k", root)
    write_clips(tmp_path / "clips", "train", [("a", "zumba", CLIP)])
    (clip,) = (tmp_path / "clips" / "videos" / "zumba").iterdir()
    (clip.parent / "b.mp4").write_bytes(CLIP)
    renamed_as_latin1(clip.parent / "b.mp4")
    with pytest.raises(DatasetLayoutError, match=r"caf\\xe9\.mp4"):
        open_dataset("k400", tmp_path / "clips")
    jpg, png = next(iter(make_pairs(1, "training").values()))
    tar = write_tar(tmp_path / "a.tar", [("caf\udce9.jpg", jpg), ("caf\udce9.png", png)])
    with pytest.raises(DatasetLayoutError, match=r"a\.tar: the name b'caf\\xe9\.jpg'"):
        open_dataset("ade20k", tar)


def test_images_of_coco_are_found_in_any_case_and_others_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_coco(tmp_path, train=1, val=4)
    paths = sorted((root / "val2017").iterdir())
    paths[0].rename(paths[0].with_suffix(".JPG"))
    paths[1].unlink()
    paths[1].symlink_to(root / "nowhere.jpg")
    (root / "val2017" / "stranger.jpg").write_bytes(b"x")
    (root / "val2017" / f"._{paths[2].name}").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset("coco", root, "val2017")
    assert dataset.unusable_records == {paths[1].stem: f"its image {paths[1].name} is a link to nothing"}
    assert (
        "holds 1 image beyond those that instances_val2017.json lists, such as 'stranger.jpg'" in caplog.text
    )
    for index, record in enumerate(dataset.records):
        if record.key not in dataset.unusable_records:
            assert len(dataset.read_source(index)) == record.source_bytes > 0
