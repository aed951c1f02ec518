"""The names that `import extract` offers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import extract

ROOT = Path(__file__).parents[2]


def test_every_name_resolves_to_what_it_says() -> None:
    assert extract.__all__ == sorted(extract.__all__) == dir(extract)
    for name in extract.__all__:
        found = getattr(extract, name)
        assert found.__name__ == name and found.__module__.startswith("extract.")


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'load_trunk'; it has .*build_trunk"):
        _ = extract.load_trunk


def test_names_of_data_sets_and_backbones() -> None:
    assert {"ade20k", "coco", "k400"} <= set(extract.dataset_names())
    assert {"swinv2-t", "swinv2-g", "swinv2-nano"} <= set(extract.backbone_names())


def test_a_pyramid_in_three_lines() -> None:
    backbone = extract.load_backbone(extract.backbone_card("swinv2-nano", levels=("p4", "p5")))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8))
    levels = backbone(pixels, torch.tensor([[64, 96]]))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "p4": (1, 4, 6, 96),
        "p5": (1, 2, 3, 192),
    }


def test_listing_data_sets_loads_no_backbone() -> None:
    lines = "import sys, extract; extract.dataset_names(); print({'torch', 'timm'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
