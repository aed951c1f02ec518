"""Stores that no head of their task can read are refused before anything is extracted."""

import re
from pathlib import Path

import pytest

from extract.backbones.loading import backbone_card
from heads import build_head
from heads.building import levels_read
from pipelines.__main__ import main
from pipelines.errors import UsageError
from pipelines.forecast.readable_levels import require_readable
from stores.pyramid import PyramidSpec
from tests.heads.pyramids import probe_pyramid, pyramid_of


def pyramid(*names: str) -> PyramidSpec:
    return backbone_card("swinv2-nano", levels=names).pyramid


@pytest.mark.parametrize(
    ("task", "levels"),
    [
        ("segmentation", ("p2", "p3", "p4", "p5")),
        ("segmentation", ("p4", "p5")),  # p2 and p3 are recomputed
        ("detection", ("p5",)),
        ("video", ("p5n",)),
        ("video", ("p5",)),
        ("classification", ("avg",)),
        ("classification", ("p4",)),
    ],
)
def test_what_some_head_reads(task: str, levels: tuple[str, ...]) -> None:
    require_readable(task, pyramid(*levels), ("p2", "p3", "p4", "p5"), model="swinv2-nano")


@pytest.mark.parametrize(
    ("task", "levels", "recomputable"),
    [
        ("segmentation", ("avg",), ("p2", "p3", "p4", "p5")),
        ("segmentation", ("p4", "p5"), ()),
        ("segmentation", ("p2", "p3"), ("p2", "p3", "p4", "p5")),
        ("video", ("avg",), ()),
    ],
)
def test_what_no_head_reads(task: str, levels: tuple[str, ...], recomputable: tuple[str, ...]) -> None:
    message = rf"--levels {','.join(levels)} of nano: no head of {task} can read them, for example: "
    with pytest.raises(UsageError, match=message):
        require_readable(task, pyramid(*levels), recomputable, model="nano")


def test_extract_refuses_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.extract.datasets.made_own import DESCRIPTION, write_description, write_masks

    write_masks(tmp_path / "data", {"train": 2, "test": 1})
    name = str(write_description(tmp_path / "my.yaml", DESCRIPTION))
    words = ["--dataset", name, "--model", "swinv2-nano", "--weights", "random:0", "--levels", "avg"]
    assert main(["extract", *words, "--stores", str(tmp_path / "features")]) == 2
    assert "no head of segmentation can read them" in capsys.readouterr().err
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("model", "expected"),
    [("timm:resnet18", "p5"), ("timm:vit_tiny_patch16_224", "b12n"), ("swinv2-nano", "p5n")],
)
def test_video_heads_read_the_last_map_of_any_backbone(model: str, expected: str) -> None:
    stored = backbone_card(model, levels=("last",)).pyramid
    for name in ("linear", "temporal1", "global1"):
        head = build_head(name, "video", stored, 3)
        assert head.levels == (expected,) == levels_read(name, "video", head.pyramid)


def test_the_normed_map_is_preferred() -> None:
    assert levels_read("linear", "video", pyramid("p4", "p5", "p5n", "avg")) == ("p5n",)
    assert levels_read("linear", "video", pyramid_of(8)) == ("p5",)


def test_probes_choose_their_features() -> None:
    def read(name: str, **settings: object) -> tuple[str, ...]:
        return levels_read(name, "classification", probe_pyramid(8), **settings)

    assert read("linear") == ("cls4n",) and read("linear-cls4-avg") == (
        *(f"cls{i}n" for i in range(1, 5)),
        "avg4n",
    )
    assert read("linear", feature="map") == ("p5",) and read("linear-cls-avg") == ("cls4n", "avg4n")
    with pytest.raises(ValueError, match="linear-cls4: no level for feature cls of 5 blocks; available"):
        read("linear-cls4", blocks=5)
    assert re.match("avg", levels_read("linear", "classification", pyramid("p5n", "avg"))[0])
