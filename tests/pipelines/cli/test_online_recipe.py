"""The default recipe of a head that trains online: of own data by its size, as from a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from extract.datasets import dataset_module
from pipelines.cli.recipes import base_file

HERE = Path(__file__).parents[2]


def test_own_images_have_the_recipe_of_their_size(tmp_path: Path) -> None:
    description = HERE / "contracts/descriptions/own-pairs.yaml"
    module = dataset_module(str(description))
    module.write_sample(tmp_path, 3, np.random.default_rng(0))
    given = {"online": "true", "head": "bifpn1", "dataset": str(description), "data": str(tmp_path)}
    assert base_file({**given, "model": "swinv2-nano"}).stem == "small-segmentation"
    assert base_file({**given, "head": "m2f-pd1-td3"}).stem == "small-m2f"


def test_other_data_sets_have_their_own() -> None:
    given = {"online": "true", "head": "bifpn1", "dataset": "ade20k"}
    assert base_file(given).stem == "ade20k-upernet-frozen"
