"""Heads of every kind, traced by torch.export, give what they predict image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from extract.backbones.loading import backbone_card, load_backbone
from heads.contract import Head
from pipelines.errors import UsageError
from pipelines.export.outputs import output_names
from pipelines.export.program import input_names, largest_difference, trace, write_onnx, write_pt2
from pipelines.export.tensor_model import TensorHead, made_views
from pipelines.live.backbone import live_features
from tests.contracts.small_heads import build_small_head

SIZE = (64, 96)
PYRAMID = ("p2", "p3", "p4", "p5")
KINDS = {
    # task and head: (levels, formats)
    ("segmentation", "linear"): (PYRAMID, "pt2 onnx"),
    ("segmentation", "fpn"): (PYRAMID, "pt2 onnx"),  # UPerNet
    ("segmentation", "bifpn1"): (PYRAMID, "pt2 onnx"),
    ("segmentation", "m2f-pd1-td3"): (PYRAMID, "pt2 onnx"),
    ("classification", "linear"): (("avg",), "pt2 onnx"),
    ("video", "linear"): (("p5n",), "pt2 onnx"),
    ("video", "temporal1"): (("p5n",), "pt2 onnx"),
    ("video", "global1"): (("p5n",), "pt2 onnx"),
    ("detection", "fpn"): (PYRAMID, "pt2"),
    ("detection", "cascade-fpn"): (PYRAMID, "pt2"),
    ("detection", "htc-nosem-bifpn5"): (PYRAMID, "pt2"),
}


@pytest.mark.ci
@pytest.mark.parametrize(("task", "name"), list(KINDS), ids=["-".join(each) for each in KINDS])
def test_a_traced_head_predicts_as_itself(task: str, name: str, tmp_path: Path) -> None:
    names, formats = KINDS[task, name]
    backbone = load_backbone(backbone_card("swinv2-nano", levels=names))
    head = decided(build_small_head(name, task, backbone.pyramid, 5))
    shape = (2, 3, 3, *SIZE) if task == "video" else (2, 3, *SIZE)
    (features, valid), more = inputs(backbone, shape), inputs(backbone, (3, *shape[1:]))
    model = TensorHead(head, SIZE).eval()
    program = trace(model, head, (features, valid))
    again = (features, valid) if task == "detection" else more
    sizes = [(y, x) for y, x in again[1].tolist()]
    expected = head.predict(again[0], sizes, sizes)
    if task == "detection":
        assert sum(len(each["scores"]) for each in expected) > 4
    for form in formats.split():
        write = {"pt2": write_pt2, "onnx": write_onnx}[form]
        record = {"inputs": input_names(model, head.levels), "outputs": output_names(head)}
        read = write(program, tmp_path / f"head.{form}", record)
        found = read(*again)
        assert largest_difference(head, found, expected, again[1]) < 1e-4
        if task == "detection":
            boxes_agree(found, expected)


def boxes_agree(found: dict[str, torch.Tensor], expected: list[Any]) -> None:
    for row, theirs in enumerate(expected):
        count = len(theirs["scores"])
        assert (found["labels"][row, :count] == theirs["labels"]).all()
        assert (found["labels"][row, count:] == -1).all() and not found["scores"][row, count:].any()
        assert (found["boxes"][row, :count] - theirs["boxes"]).abs().max() < 1e-2
        assert (found["mask_probs"][row, :count] - theirs["mask_probs"]).abs().max() < 1e-3


@pytest.mark.ci
def test_onnx_names_the_operator_that_it_lacks(tmp_path: Path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"scores": torch.linalg.eigvals(x @ x.mT).real + valid.sum()}

    with torch.no_grad():
        program = torch.export.export(Sorted(), (torch.rand(3, 3), torch.ones(1)))
    with pytest.raises(UsageError, match=r"ONNX has no form for aten\.linalg_eig"):
        write_onnx(program, tmp_path / "x.onnx", {"inputs": ["x", "valid"], "outputs": ["scores"]})


def decided(head: Head) -> Head:
    """With classifiers far from zero: untrained ones give every class the same score."""
    generator = torch.Generator().manual_seed(0)
    for module in head.modules():
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if outputs in (5, 6):
            nn.init.normal_(module.weight, std=0.5, generator=generator)
    return head.eval()


def inputs(backbone: Any, shape: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    pixels, valid = made_views(shape)
    sizes = [(y, x) for y, x in valid.tolist()]
    return live_features(backbone, pixels.movedim(-3, -1).contiguous().numpy(), sizes), valid
