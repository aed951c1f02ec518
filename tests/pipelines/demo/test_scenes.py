"""Made scenes: the same everywhere, in the official layout, and never shared between splits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import open_dataset
from pipelines.demo.ade20k import DemoSize
from pipelines.demo.made.scenes import CLASS_LABELS, SIDES_PX, make_scene, write_split
from pipelines.demo.made.textures import PATTERNS, generator, paint
from pipelines.demo.pretrain import SPLIT, Pretraining

SPLITS = (SPLIT, "training", "validation")


def digest(split: str, number: int) -> str:
    return hashlib.sha256(make_scene(split, number).rgb.tobytes()).hexdigest()


def test_a_scene_follows_from_its_split_and_number() -> None:
    once, again, other = (make_scene("training", number) for number in (5, 5, 6))
    assert np.array_equal(once.rgb, again.rgb)
    assert np.array_equal(once.labels, again.labels)
    assert once.rgb.shape != other.rgb.shape or not np.array_equal(once.rgb, other.rgb)


def test_splits_share_no_image() -> None:
    digests = {split: {digest(split, number) for number in range(40)} for split in SPLITS}
    assert all(len(found) == 40 for found in digests.values())
    assert len(set.union(*digests.values())) == 40 * len(SPLITS)


@pytest.mark.slow
def test_no_scene_of_the_demo_was_pretrained_on() -> None:
    """Every image the bundled backbone and the demo's heads ever see, or are measured on."""
    size = DemoSize()
    counts = {
        SPLIT: Pretraining().scenes,
        "training": size.training_scenes,
        "validation": size.validation_scenes,
    }
    digests = [digest(split, number) for split, count in counts.items() for number in range(count)]
    assert len(set(digests)) == sum(counts.values())


def test_files_read_back_as_the_scenes(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "validation", 3)
    dataset = open_dataset("ade20k", folder, "validation")
    assert [record.key for record in dataset.records] == [f"ADE_val_{n:08d}" for n in (1, 2, 3)]
    for number in range(3):
        scene = make_scene("validation", number)
        assert np.array_equal(dataset.read_truth(number), scene.labels)
        with Image.open(folder / "images/validation" / f"{dataset.records[number].key}.jpg") as image:
            stored = np.asarray(image.convert("RGB"), np.int16)
        # JPEG keeps the picture, not the bytes: chroma is halved in both directions.
        assert np.abs(stored.mean(2) - scene.rgb.mean(2)).mean() < 4


def test_files_are_written_once_and_the_same(tmp_path: Path) -> None:
    first = write_split(tmp_path / "a", "training", 2)
    second = write_split(tmp_path / "b", "training", 2)
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) == 4
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    before = {file: (first / file).stat().st_mtime_ns for file in files}
    write_split(tmp_path / "a", "training", 2)
    assert before == {file: (first / file).stat().st_mtime_ns for file in files}


def test_a_half_written_scene_is_made_again(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "training", 1)
    (image,) = (folder / "images/training").iterdir()
    whole = image.read_bytes()
    image.unlink()
    write_split(tmp_path, "training", 1)
    assert image.read_bytes() == whole


def test_sizes_and_classes_vary() -> None:
    scenes = [make_scene("validation", number) for number in range(60)]
    assert {side for scene in scenes for side in scene.labels.shape} == set(SIDES_PX)
    pixels = np.bincount(np.concatenate([scene.labels.ravel() for scene in scenes]), minlength=256)
    shares = {name: pixels[label] / pixels.sum() for name, label in CLASS_LABELS.items()}
    assert len(shares) >= 8
    assert min(shares.values()) > 0.01, shares
    assert np.count_nonzero(pixels) == len(CLASS_LABELS)


@pytest.mark.parametrize("name", PATTERNS)
def test_colours_say_nothing_about_a_class(name: str) -> None:
    """The mean colour of a painted region varies within each class far more than it differs between them."""
    colours = np.array([paint(generator("colour", name, n), name, (32, 32)).mean((0, 1)) for n in range(60)])
    means = [
        np.mean([paint(generator("colour", other, n), other, (32, 32)).mean((0, 1)) for n in range(60)], 0)
        for other in ("sky", "wall", "field")
    ]
    spread = colours.std(0).mean()
    assert spread > 20
    assert all(np.abs(colours.mean(0) - mean).mean() < 1.5 * spread for mean in means)
