"""Stores of pooled vectors: float16 in wide shards by default, and the levels of probes by the backbone."""

import pytest

from extract.backbones.loading import backbone_card
from extract.planning.geometry import is_pooled, planned_bin
from pipelines.errors import UsageError
from pipelines.forecast.planned_extraction import chosen_codec
from stores.format.targets import DenseTarget


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("swinv2-nano", ["avg"]),
        ("timm:resnet18", ["pooled"]),
        ("timm:vit_tiny_patch16_224", ["cls9n", "cls10n", "cls11n", "cls12n", "avg12n"]),
        ("timm:vit_base_patch16_siglip_224", ["pooled"]),
    ],
)
def test_levels_that_probes_read(model: str, expected: list[str]) -> None:
    assert set(backbone_card(model, levels=("probe",)).pyramid.names) == set(expected)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("swinv2-nano", "p5n"), ("timm:resnet18", "p5"), ("timm:vit_tiny_patch16_224", "b12n")],
)
def test_the_last_map(model: str, expected: str) -> None:
    assert backbone_card(model, levels=("last",)).pyramid.names == (expected,)


def test_codecs_of_pooled_vectors() -> None:
    pooled = backbone_card("timm:resnet18", levels=("pooled",)).pyramid
    maps = backbone_card("timm:resnet18", levels=("p5", "pooled")).pyramid
    assert chosen_codec(None, pooled) == "float16" and chosen_codec(None, maps) == "int8"
    assert chosen_codec("float16", pooled) == "float16" and chosen_codec("int4", maps) == "int4"
    for name in ("int8", "int4"):
        message = rf"--codec {name}: level pooled is one cell, .* scale for every value, \d.*float16 takes 2"
        with pytest.raises(UsageError, match=message):
            chosen_codec(name, pooled)


def test_geometry() -> None:
    pooled = backbone_card("swinv2-nano", levels=("avg",)).pyramid
    maps = backbone_card("swinv2-nano", levels=("p5n", "avg")).pyramid
    label, labels = DenseTarget("label", "int64", ()), DenseTarget("labels", "uint8", ("y", "x"))
    assert is_pooled(pooled, [label]) and not is_pooled(pooled, [labels]) and not is_pooled(maps, [label])
    common = {"frames": None, "codec": "float16", "pixels": False, "shard_rows": None, "batch_rows": 4}
    imagenet = planned_bin((224, 224), 1_281_167, pooled, **common, is_small=True)
    assert (imagenet.shard_rows, imagenet.shards) == (1 << 14, 79)
    assert planned_bin((224, 224), 1_281_167, maps, **common).shard_rows <= 1024
    assert planned_bin((224, 224), 400, pooled, **common, is_small=True).shard_rows == 32
