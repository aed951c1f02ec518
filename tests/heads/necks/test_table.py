"""Every neck of the table, in both heads that take one; settings of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import heads.necks
from heads import build_head
from heads.contract import HeadError
from heads.necks import table
from heads.necks.table import build_neck, find_neck, neck_names
from tests.heads.pyramids import pyramid_of

CHANNELS = (8, 16, 32, 64)
SIZES = ((13, 10), (7, 5), (4, 3), (2, 2))
TASKS = ("segmentation", "detection")
SMALL: dict[str, dict[str, Any]] = {
    "segmentation": {"width": 32, "norm": "gn"},
    "detection": {"width": 16, "box_width": 16, "mask_width": 16},
}


@pytest.mark.parametrize("extra_levels", [0, 1, 2])
@pytest.mark.parametrize("name", neck_names())
def test_every_neck_gives_maps_of_one_width_and_the_extra_levels(name: str, extra_levels: int) -> None:
    for depth in {1, min(2, find_neck(name).max_depth)}:
        neck = build_neck(name, CHANNELS, 8, depth=depth, norm="gn", extra_levels=extra_levels)
        maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]
        sizes = [*SIZES, (1, 1), (1, 1)][: len(SIZES) + extra_levels]
        assert [tuple(x.shape) for x in neck(maps)] == [(2, 8, *size) for size in sizes]
        assert len(maps) == len(CHANNELS)  # the given list is left as it was
        sum(x.square().sum() for x in neck(maps)).backward()
        assert all(parameter.grad is not None for parameter in neck.parameters())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", neck_names())
def test_every_neck_serves_every_head_with_a_neck(task: str, name: str) -> None:
    head = build_head("fpn", task, pyramid_of(8), 3, seed=0, neck=name, neck_depth=1, **SMALL[task])
    features = {f"p{i + 2}": torch.randn(1, 8 << i, 16 >> i, 16 >> i) for i in range(4)}
    assert len(head.eval().predict(features, [(64, 60)], [(64, 60)])) == 1


@pytest.mark.parametrize("task", TASKS)
def test_unknown_necks_and_depths_are_refused(task: str) -> None:
    with pytest.raises(HeadError, match=r"neck is 'fapn', expected one of bifpn, fpn, fpn-res"):
        build_head("fpn", task, pyramid_of(8), 3, neck="fapn")
    with pytest.raises(HeadError, match=r"neck_depth is 5, but neck fpn repeats nothing: expected 1"):
        build_head("bifpn5", task, pyramid_of(8), 3, neck="fpn")
    with pytest.raises(HeadError, match=r"neck_depth of bifpn is 17, expected a whole number in 1\.\.16"):
        build_head("bifpn5", task, pyramid_of(8), 3, neck_depth=17)


FAPN = """
from torch import nn
from heads.necks.contract import Neck

class FaPN(nn.Module):
    def __init__(self, in_channels, width, extra_levels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in in_channels)
        self.extra_levels = extra_levels

    def forward(self, maps):
        maps = [conv(x) for conv, x in zip(self.convs, maps)]
        for _ in range(self.extra_levels):
            maps.append(nn.functional.max_pool2d(maps[-1], 1, 2))
        return maps

def _build(in_channels, width, *, depth, extra_levels, norm):
    return FaPN(in_channels, width, extra_levels)

NECKS = {"fapn": Neck(build=_build, max_depth=3, compiles=True)}
"""


@pytest.fixture
def fapn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "fapn.py").write_text(FAPN)
    monkeypatch.setattr(heads.necks, "__path__", [*heads.necks.__path__, str(tmp_path)])
    table._necks.cache_clear()
    yield tmp_path
    table._necks.cache_clear()


@pytest.mark.parametrize("task", TASKS)
def test_a_new_neck_is_one_file(task: str, fapn: Path) -> None:
    head = build_head("fpn", task, pyramid_of(8), 3, neck="fapn", neck_depth=2, **SMALL[task])
    assert type(head.necks["fapn"]).__name__ == "FaPN"
    features = {f"p{i + 2}": torch.randn(1, 8 << i, 16 >> i, 16 >> i) for i in range(4)}
    assert len(head.eval().predict(features, [(64, 60)], [(64, 60)])) == 1
    assert find_neck("fapn").compiles
    with pytest.raises(HeadError, match="neck_depth of fapn is 4"):
        build_head("fpn", task, pyramid_of(8), 3, neck="fapn", neck_depth=4)


def test_a_name_of_two_files_is_refused(fapn: Path) -> None:
    (fapn / "second.py").write_text(FAPN)
    with pytest.raises(RuntimeError, match="defines neck 'fapn', which another file defines too"):
        neck_names()


FORMER = [
    ("segmentation", "fpn", {"bifpn_layers": 3}, {"neck": "bifpn", "neck_depth": 3}),
    ("segmentation", "bifpn5", {"bifpn_layers": 0}, {"neck": "fpn", "neck_depth": 1}),
    ("segmentation", "bifpn2", {"bifpn_norm": "none"}, {"neck_norm": "none"}),
    ("detection", "fpn", {"residual_blocks": 2}, {"neck": "fpn-res", "neck_depth": 2}),
    ("detection", "fpn-res4", {"residual_blocks": 1}, {"neck_depth": 1}),
    ("detection", "fpn-res4", {"residual_blocks": 0, "bifpn_layers": 2}, {"neck": "bifpn", "neck_depth": 2}),
    ("detection", "cascade-fpn", {"bifpn_layers": 1}, {"neck": "bifpn", "neck_depth": 1}),
    ("detection", "htc-nosem-bifpn5", {"bifpn_layers": 1}, {"neck_depth": 1}),
]


@pytest.mark.parametrize(("task", "name", "former", "present"), FORMER)
def test_settings_of_earlier_versions_build_the_same_head(
    task: str, name: str, former: dict[str, Any], present: dict[str, Any]
) -> None:
    old, new = (
        build_head(name, task, pyramid_of(8), 3, seed=7, **SMALL[task], **settings)
        for settings in (former, present)
    )
    assert list(old.state_dict()) == list(new.state_dict())
    for mine, theirs in zip(old.state_dict().values(), new.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_settings_of_earlier_versions_are_refused_as_they_were() -> None:
    with pytest.raises(HeadError, match=r"bifpn_layers=5 and residual_blocks=2 together"):
        build_head("bifpn5", "detection", pyramid_of(8), 3, residual_blocks=2)
    with pytest.raises(HeadError, match=r"bifpn_layers is -1, expected a whole number in 0\.\.16"):
        build_head("fpn", "segmentation", pyramid_of(8), 3, bifpn_layers=-1)
    with pytest.raises(HeadError, match=r"bifpn_layers \(of earlier versions\) and neck together"):
        build_head("fpn", "segmentation", pyramid_of(8), 3, bifpn_layers=1, neck="fpn")
