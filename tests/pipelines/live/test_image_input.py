"""What a run's module takes for an image, and how it refuses the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import load_run
from pipelines.errors import UsageError
from pipelines.live.image_input import ImageError, rgb_images

RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
GREY = np.repeat(RGB[..., :1], 3, axis=2)
OPAQUE = np.concatenate([RGB, np.full((7, 5, 1), 255, np.uint8)], axis=2)
GOLDEN_RUN = Path(__file__).parents[2] / "golden" / "run-linear" / "run"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB, RGB),
        (RGB[::-1], RGB[::-1]),
        (RGB.transpose(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 255, RGB),
        ((RGB / 255).astype(np.float64), RGB),
        (RGB[..., 0], GREY),
        (RGB[..., :1], GREY),
        (RGB[None, :, :, 0], GREY),
        (OPAQUE, RGB),
        (OPAQUE.transpose(2, 0, 1), RGB),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(RGB[..., 0]), GREY),
        (Image.fromarray(OPAQUE), RGB),
        (np.zeros((3, 9, 3), np.uint8), np.zeros((3, 9, 3), np.uint8)),
    ],
)
def test_images_without_ambiguity(image, expected):
    (found,) = rgb_images([image])
    assert found.dtype == np.uint8 and found.flags.c_contiguous and np.array_equal(found, expected)


def test_a_batch_is_its_images():
    assert [np.array_equal(found, RGB) for found in rgb_images(np.stack([RGB, RGB]))] == [True, True]
    assert list(rgb_images([])) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (RGB.astype(np.float32), r"image 1 is float32 in \d+\.\.\d+, expected uint8 RGB.*do not normalise"),
        (np.full((4, 5, 3), -0.5), r"is float64 in -0\.5\.\.-0\.5"),
        (np.full((4, 5, 3), np.nan), "not finite"),
        (RGB.astype(np.int64), r"is int64, .*astype\('uint8'\)"),
        (RGB.astype(np.uint16) * 257, "is uint16"),
        (RGB > 9, "is bool"),
        (OPAQUE // 2, "the fourth is not opaque alpha.*blend"),
        (np.zeros((7, 5, 2), np.uint8), r"shape \(7, 5, 2\): no axis of 3 channels"),
        (np.zeros((2, 7, 5, 3), np.uint8), r"ndarray of shape \(2, 7, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), "holds no pixel"),
        (Image.fromarray(RGB).convert("P"), r"mode P, .*convert\('RGB'\)"),
        (torch.zeros(3, 4, 4, requires_grad=True), "no array that can be read"),
        ("photo.jpg", "files are read by `predict`"),
        (None, "is NoneType"),
    ],
)
def test_images_that_would_be_guessed(image, words):
    with pytest.raises(ImageError, match=words) as caught:
        list(rgb_images([RGB, image]))
    assert "image 1" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (RGB, r"one array of shape \(7, 5, 3\).*pass \[image\]"),
        (torch.zeros(3, 4, 4), r"one array of shape \(3, 4, 4\)"),
        ("photo.jpg", "given as str"),
        (Image.fromarray(RGB), r"given as Image, .*pass \[image\]"),
        (None, "given as NoneType"),
    ],
)
def test_one_image_is_no_sequence(images, words):
    with pytest.raises(ImageError, match=words):
        rgb_images(images)


def test_a_run_of_videos_takes_no_images():
    with pytest.raises(UsageError, match=r"classifies videos.*predict"):
        load_run(GOLDEN_RUN)([RGB])
