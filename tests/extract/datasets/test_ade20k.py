"""ADE20K in its official folders and in tars: the same records, labels and digest; other folders refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extract.datasets import DatasetLayoutError, choose, dataset_module, dataset_names, open_dataset
from extract.datasets.contract import Dataset
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.sources.tar_index import HostileTarError
from tests.extract.datasets.made_ade20k import (
    encoded,
    made_image,
    made_labels,
    make_pairs,
    write_folder,
    write_split,
    write_tar,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path, training=6, validation=3)


def contents(dataset: Dataset) -> list[tuple[object, bytes, bytes]]:
    count = range(len(dataset.records))
    return [(dataset.records[i], dataset.read_source(i), dataset.read_truth(i).tobytes()) for i in count]


@pytest.mark.parametrize("name", dataset_names())
def test_every_data_set_offers_what_the_programs_ask_for(name: str) -> None:
    module = dataset_module(name)
    assert set(module.TRAINING_SPLITS) < set(module.OFFICIAL_SPLITS)
    assert module.DEFAULT_FOLDER and module.TRAINING_VIEWS and module.TEST_VIEWS
    with pytest.raises(ValueError, match=", ".join(module.OFFICIAL_SPLITS)):
        open_dataset(name, ".", "no-such-split")


def test_an_unknown_data_set_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="ade20k"):
        open_dataset("imagenet")


def test_official_folders(root: Path) -> None:
    dataset = open_dataset("ade20k", root, "validation")
    assert (dataset.name, dataset.task, dataset.split) == ("ade20k", "segmentation", "validation")
    assert not dataset.is_training and open_dataset("ade20k", root).is_training
    assert dataset.num_classes == len(dataset.class_names) == len(set(dataset.class_names)) == 150
    assert dataset.class_names[0] == "wall" and dataset.class_names[-1] == "flag"
    pairs = make_pairs(3, "validation")
    for index, (key, (jpg, png)) in enumerate(sorted(pairs.items())):
        record = dataset.records[index]
        assert (record.key, record.source_bytes, dataset.read_source(index)) == (key, len(jpg), jpg)
        raw = np.asarray(Image.open(root / "annotations" / "validation" / f"{key}.png")).astype(int)
        assert record.original_hw == raw.shape
        assert np.array_equal(dataset.read_truth(index), np.where(raw == 0, 255, raw - 1))
        assert dataset.read_annotation(index) == png


def test_the_parent_folder_is_accepted_and_other_files_are_passed_over(root: Path) -> None:
    expected = contents(open_dataset("ade20k", root))
    (root / "images" / "training" / "Thumbs.db").write_bytes(b"")
    assert contents(open_dataset("ade20k", root.parent)) == expected


def test_the_digest_follows_the_annotations_and_nothing_else(root: Path, tmp_path: Path) -> None:
    digest = open_dataset("ade20k", root).annotation_digest
    moved = write_folder(tmp_path / "moved", training=6, validation=1)
    assert open_dataset("ade20k", moved).annotation_digest == digest
    changed = next((moved / "annotations" / "training").iterdir())
    changed.write_bytes(encoded(made_labels(99, (48, 64)), "PNG"))
    assert open_dataset("ade20k", moved).annotation_digest != digest


def test_what_is_not_ade20k_says_what_was_looked_for_and_where_to_get_it(root: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing-here", root / "images", root / "images" / "training"):
        with pytest.raises(DatasetLayoutError) as caught:
            open_dataset("ade20k", folder, "training")
        for text in ("images/training", "annotations/training", "sceneparsing.csail.mit.edu", str(folder)):
            assert text in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (encoded(np.full((48, 64), 151, np.uint8), "PNG"), "label 151"),
        (encoded(np.full((48, 63), 1, np.uint8), "PNG"), "63x48 pixels, its image has 64x48"),
        (encoded(made_image(0, (48, 64)), "PNG"), "colour type 2"),
        (b"", "empty"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_a_data_error(
    root: Path, annotation: bytes, reason: str
) -> None:
    write_split(
        root, "training", {"ADE_train_00000001": (encoded(made_image(1, (48, 64)), "JPEG"), annotation)}
    )
    dataset = open_dataset("ade20k", root)
    with pytest.raises(SourceError, match=reason) as caught:
        dataset.read_truth(0)
    assert caught.value.code == BAD_TARGET


def test_a_record_whose_image_has_no_header_is_listed_with_the_size_of_its_annotation(root: Path) -> None:
    write_split(root, "training", {"ADE_train_00000001": (b"", encoded(made_labels(1, (48, 64)), "PNG"))})
    write_split(root, "training", {"ADE_train_00000002": (b"no", b"no")})
    sizes = [record.original_hw for record in open_dataset("ade20k", root).records[:2]]
    assert sizes == [(48, 64), (1, 1)]


def test_subsets_are_shares_in_hash_order_or_files_of_keys(root: Path, tmp_path: Path) -> None:
    half, most = (open_dataset("ade20k", root, subset=s).subset for s in ("50%", "80pct"))
    assert half is not None and most is not None and len(half) == 3 and half < most
    (tmp_path / "keys").write_text("ADE_train_00000002\nADE_train_00000001\n\n")
    named = open_dataset("ade20k", root, subset=str(tmp_path / "keys"))
    assert named.subset == {"ADE_train_00000001", "ADE_train_00000002"}
    assert len(named.records) == 6  # the geometry stays that of all records
    (tmp_path / "keys").write_text("ADE_val_00000001\n")
    with pytest.raises(ValueError, match="ADE_val_00000001"):
        open_dataset("ade20k", root, subset=str(tmp_path / "keys"))
    with pytest.raises(FileNotFoundError, match="neither a share"):
        open_dataset("ade20k", root, subset="one percent")


def members_of(split: str, count: int, label_ending: str = "png") -> list[tuple[str, bytes]]:
    pairs = sorted(make_pairs(count, split).items())
    return [
        member
        for key, (jpg, png) in pairs
        for member in ((f"{key}.jpg", jpg), (f"{key}.{label_ending}", png), (f"{key}.json", b"{}"))
    ]


@pytest.mark.parametrize("ending", ["png", "seg.png"])
def test_tars_hold_the_same_data_set(root: Path, tmp_path: Path, ending: str) -> None:
    members, folder = members_of("training", 6, ending), tmp_path / "tars"
    write_tar(folder / "ade-training-000.tar", members[:9])
    write_tar(folder / "ade-training-001.tar", members[9:])
    write_tar(folder / "ade-validation-000.tar", members_of("validation", 1, ending))
    expected = open_dataset("ade20k", root)
    for data in (folder, f"{folder}/ade-training-{{000..001}}.tar"):
        dataset = open_dataset("ade20k", data, "training")
        assert contents(dataset) == contents(expected)
        assert dataset.annotation_digest == expected.annotation_digest


def test_webdataset_is_imported_in_its_secure_mode_and_its_tars_are_read(root: Path, tmp_path: Path) -> None:
    made = write_tar(tmp_path / "made.tar", members_of("training", 1))
    script = (
        "import sys, pathlib\n"
        "from extract.datasets import open_dataset\n"
        "root, made, written = map(pathlib.Path, sys.argv[1:])\n"
        "open_dataset('ade20k', made)\n"
        "import webdataset, webdataset.utils\n"
        "assert webdataset.utils.enforce_security\n"
        "with open(written, 'wb') as file, webdataset.TarWriter(file) as sink:\n"
        "    for path in sorted((root / 'images/training').iterdir()):\n"
        "        png = (root / 'annotations/training' / (path.stem + '.png')).read_bytes()\n"
        "        sink.write({'__key__': path.stem, 'jpg': path.read_bytes(), 'png': png})\n"
    )
    written, insecure = tmp_path / "written.tar", {**os.environ, "WDS_SECURE": "0"}
    subprocess.run([sys.executable, "-c", script, root, made, written], check=True, env=insecure)
    assert contents(open_dataset("ade20k", written)) == contents(open_dataset("ade20k", root))


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        pytest.param("ADE_train_00000009.pkl", id="pickle"),
        pytest.param("ADE_train_00000009.meta.PKL", id="pickle behind another ending"),
        pytest.param("../ADE_train_00000009.jpg", id="parent"),
        pytest.param("a/../../ADE_train_00000009.jpg", id="parent inside"),
        pytest.param("/etc/ADE_train_00000009.jpg", id="absolute"),
        pytest.param("C:\\ADE_train_00000009.jpg", id="drive"),
        pytest.param(link("ADE_train_00000009.jpg", tarfile.SYMTYPE, "/etc/passwd"), id="symlink"),
        pytest.param(
            link("ADE_train_00000009.jpg", tarfile.LNKTYPE, "ADE_train_00000001.jpg"), id="hardlink"
        ),
        pytest.param(link("ADE_train_00000009.jpg", tarfile.FIFOTYPE, ""), id="fifo"),
        pytest.param("ADE_train_00000001.jpg", id="the same name twice"),
        pytest.param("folder/ADE_train_00000001.jpg", id="the same key in two folders"),
        pytest.param("ADE_train_00000001.JPG", id="the same ending twice"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, member: str | tarfile.TarInfo) -> None:
    tar = write_tar(tmp_path / "a.tar", [*members_of("training", 1), (member, b"")])
    with pytest.raises(HostileTarError):
        open_dataset("ade20k", tar, "training")


def test_a_key_in_two_tars_is_refused(tmp_path: Path) -> None:
    for name in ("training-0.tar", "training-1.tar"):
        write_tar(tmp_path / name, members_of("training", 1))
    with pytest.raises(HostileTarError, match="ADE_train_00000001"):
        open_dataset("ade20k", tmp_path)


@pytest.mark.parametrize(
    "url", ["pipe:touch hacked", "pipe:touch hacked # a.tar", "http://example.org/a.tar"]
)
def test_urls_and_pipes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HostileTarError, match="no URLs and no pipes"):
        open_dataset("ade20k", url)
    assert not list(tmp_path.iterdir())


def test_a_missing_tar_of_a_pattern_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", members_of("training", 1))
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 tars.*a-1\.tar"):
        open_dataset("ade20k", str(tmp_path / "a-{0..1}.tar"))


@pytest.mark.parametrize("damage", ["truncated", "compressed", "not a tar", "a header of 1 GB"])
def test_damaged_tars_are_refused(tmp_path: Path, damage: str) -> None:
    tar = write_tar(tmp_path / "a.tar", members_of("training", 2))
    if damage == "truncated":
        tar.write_bytes(tar.read_bytes()[:2000])
    elif damage == "compressed":
        with tarfile.open(tar, "w:gz"):
            pass
    elif damage == "not a tar":
        tar.write_bytes(b"hello" * 1000)
    else:
        info = tarfile.TarInfo("./@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
        with open(tar, "wb") as file:
            file.write(info.tobuf())
            file.truncate(2 << 30)  # sparse: takes no space
    with pytest.raises(HostileTarError):
        open_dataset("ade20k", tar, "training")


def test_a_sample_with_two_images_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [*members_of("training", 2), ("ADE_train_00000002.jpeg", b"another")])
    with pytest.raises(DatasetLayoutError, match="'ADE_train_00000002' has jpeg, jpg, json, png"):
        open_dataset("ade20k", tmp_path / "a.tar")


@pytest.mark.data
def test_the_real_samples(samples: Path) -> None:
    root = samples / "ade20k" / "ADEChallengeData2016"
    if not root.is_dir():
        pytest.skip("the samples hold no ADE20K")
    for split, count in (("training", 3), ("validation", 6)):
        dataset = open_dataset("ade20k", root, split)
        assert len(dataset.records) == count
        for index, record in enumerate(dataset.records):
            labels = dataset.read_truth(index)
            assert labels.shape == record.original_hw
            assert set(np.unique(labels)) <= {*range(150), 255}


def test_views_are_chosen_with_the_split() -> None:
    training = choose("ade20k", crop_size=64)
    assert (training.split, training.recipe.name, training.views) == ("training", "ade20k", 1)
    test = choose("ade20k", "validation", views="ms-flip")
    assert (test.split, test.recipe.name, test.views, test.levels) == ("validation", "ms-flip", None, None)
    assert choose("k400", views=3).views == 3 and choose("k400").levels == ("last",)


@pytest.mark.parametrize(
    ("split", "wrong", "message"),
    [
        (None, {"views": "single"}, "pass their number"),
        (None, {"views": 0}, "--views 0"),
        (None, {"recipe": "coco"}, "--view-recipe coco: ade20k has ade20k, ade20k-m2f"),
        ("validation", {"views": 4}, "pass single or ms-flip"),
        ("validation", {"views": "4x3"}, "pass single or ms-flip"),
        ("validation", {"recipe": "ade20k"}, "--view-recipe ade20k"),
        ("test", {}, "it has training, validation"),
    ],
)
def test_wrong_choices_of_views_are_refused(split: str | None, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose("ade20k", split, **wrong)
