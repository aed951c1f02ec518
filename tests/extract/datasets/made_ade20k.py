"""Small ADE20K folders made of seeded noise and blocks, in the official layout, and their tars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from extract.datasets.layouts.sample_files import sample_image

SIZES_HW = ((48, 64), (64, 48), (40, 72), (64, 64), (33, 65))


def made_image(seed: int, hw: tuple[int, int]) -> np.ndarray:
    """uint8 RGB (H, W, 3): smooth enough that JPEG keeps it, different for every seed."""
    return sample_image(np.random.default_rng(seed), hw)


def made_labels(seed: int, hw: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W) as in an official annotation: blocks of 0..150."""
    rng = np.random.default_rng([seed, 1])
    return np.kron(
        rng.integers(0, 151, (8, 8), dtype=np.uint8), np.ones((hw[0] // 8 + 1, hw[1] // 8 + 1), np.uint8)
    )[: hw[0], : hw[1]]


def encoded(array: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_pairs(
    count: int, split: str, sizes: Sequence[tuple[int, int]] = SIZES_HW
) -> dict[str, tuple[bytes, bytes]]:
    """Image and annotation files of `count` records by key."""
    short = {"training": "train", "validation": "val"}[split]
    pairs = {}
    for number in range(1, count + 1):
        hw, seed = sizes[number % len(sizes)], number + 1000 * len(short)
        jpg, png = encoded(made_image(seed, hw), "JPEG", quality=95), encoded(made_labels(seed, hw), "PNG")
        pairs[f"ADE_{short}_{number:08d}"] = jpg, png
    return pairs


def write_folder(parent: Path, training: int = 12, validation: int = 5) -> Path:
    """A folder ADEChallengeData2016 with so many records; returns it."""
    root = parent / "ADEChallengeData2016"
    for split, count in (("training", training), ("validation", validation)):
        write_split(root, split, make_pairs(count, split))
    return root


def write_split(root: Path, split: str, pairs: Mapping[str, tuple[bytes, bytes]]) -> None:
    for kind, ending, part in (("images", "jpg", 0), ("annotations", "png", 1)):
        folder = root / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        for key, files in pairs.items():
            (folder / f"{key}.{ending}").write_bytes(files[part])


def write_tar(path: Path, members: Sequence[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """A tar of these members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
