"""Names of classes in pictures of label maps."""

import numpy as np
from PIL import Image

from pipelines.pictures.label_maps import name_classes


def named(labels: np.ndarray, names: list[str]) -> np.ndarray:
    picture = Image.new("RGB", labels.shape[::-1], (90, 90, 90))
    name_classes(picture, labels, names)
    return (np.asarray(picture) != 90).any(-1)


def test_names_stand_in_the_middle_of_their_classes() -> None:
    labels = np.zeros((120, 200), np.uint8)
    labels[:, 100:] = 1
    drawn = named(labels, ["sky", "road"])
    left, right = np.nonzero(drawn[:, :100]), np.nonzero(drawn[:, 100:])
    for rows, columns in (left, right):
        assert abs(rows.mean() - 60) < 6 and abs(columns.mean() - 50) < 12
    assert not named(labels, ["sky"])[:, 110:].any()  # a label without a name


def test_small_classes_are_not_named() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[:5, :5] = 1
    assert np.array_equal(named(labels, ["sky", "speck"]), named(labels, ["sky"]))
