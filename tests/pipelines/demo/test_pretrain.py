"""The pretraining script: from its command line to a file that a backbone loads, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from extract.backbones.loading import backbone_card, load_backbone
from extract.backbones.weights import BUNDLED
from pipelines.demo import pretrain
from pipelines.demo.made.scenes import CLASS_LABELS, make_scene
from pipelines.demo.made.textures import generator

TINY = ["--scenes", "40", "--steps", "2", "--batch-size", "8", "--threads", "1"]


@pytest.fixture(autouse=True)
def keep_threads() -> object:
    """The script sets torch's threads for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors", "other.safetensors")]
    for path, seed in zip(paths, ("0", "0", "1"), strict=True):
        pretrain.main(["--out", str(path), *TINY, "--seed", seed])
    one, two, other = (path.read_bytes() for path in paths)
    assert one == two
    assert one != other
    assert len(one) < 4e6
    backbone = load_backbone(backbone_card("swinv2-nano"), str(paths[0]))
    levels = backbone(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), torch.tensor([[64, 64]]))
    assert {name: tuple(level.shape[1:]) for name, level in levels.items()} == {
        "p2": (16, 16, 24),
        "p3": (8, 8, 48),
        "p4": (4, 4, 96),
        "p5": (2, 2, 192),
    }


def test_steps_follow_the_window_rule(tmp_path: Path) -> None:
    """Both rules made the bundled file; its third step is the first of cover."""
    assert set(pretrain.Pretraining().window_rules) == {"partition", "cover"}
    found = set()
    for rule in ("partition", "cover", "both"):
        path = tmp_path / f"{rule}.safetensors"
        pretrain.main(["--out", str(path), *TINY, "--steps", "3", "--window-rule", rule])
        found.add(path.read_bytes())
    assert len(found) == 3


def test_crops_are_named_after_the_class_that_fills_them() -> None:
    scenes = [make_scene(pretrain.SPLIT, number) for number in range(10)]
    found = pretrain.single_class_squares(scenes, generator("test"))
    assert sum(map(len, found)) > 20
    for label, squares in zip(CLASS_LABELS.values(), found, strict=True):
        for s in squares:
            inside = scenes[s.scene].labels[s.y : s.y + s.side, s.x : s.x + s.side]
            assert inside.shape == (s.side, s.side)
            assert (inside == label).mean() >= pretrain.MIN_SHARE


def test_batches_are_balanced_pictures_and_class_numbers() -> None:
    scenes = [make_scene(pretrain.SPLIT, number) for number in range(60)]
    rng = generator("test")
    rgb, classes = next(pretrain.batches(scenes, pretrain.single_class_squares(scenes, rng), 600, rng))
    assert rgb.shape == (600, pretrain.CROP_PX, pretrain.CROP_PX, 3)
    assert rgb.dtype == np.float32
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert np.bincount(classes, minlength=len(CLASS_LABELS)).min() > 20


def test_the_bundled_file_is_small_and_half_precision() -> None:
    from safetensors.torch import load_file

    assert BUNDLED.stat().st_size < 4e6
    assert {value.dtype for value in load_file(BUNDLED).values()} == {torch.float16}
