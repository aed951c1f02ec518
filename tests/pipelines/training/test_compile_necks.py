"""Compiled necks: the same maps in training, plain in evaluation, and plain where compiling fails."""

from __future__ import annotations

import logging

import pytest
import torch

from heads import build_head
from pipelines.training.compile_necks import compile_necks, compiles_necks
from tests.pipelines.made_stores import PYRAMID


def test_necks_compile_by_default_on_gpus_only() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert [compiles_necks(None, cpu), compiles_necks(None, cuda)] == [False, True]
    assert [compiles_necks("necks", cpu), compiles_necks("none", cuda)] == [True, False]


def test_compiled_necks_run_in_training_alone() -> None:
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        def run(*args: torch.Tensor) -> object:
            calls.append(1)
            return graph.forward(*args)

        return run

    head, plain = (
        build_head("bifpn1", "segmentation", PYRAMID, 5, seed=0, width=16, norm="gn") for _ in "ab"
    )
    assert compile_necks(head, backend=backend) == 1
    assert list(head.state_dict()) == list(plain.state_dict())
    features = {
        level.name: torch.randn(2, level.channels, 64 // level.stride_px, 64 // level.stride_px)
        for level in PYRAMID
    }
    labels = [{"labels": torch.zeros(64, 64, dtype=torch.uint8)}] * 2
    losses = [
        h.losses(features, labels, [(64, 64)] * 2, torch.Generator().manual_seed(0))["loss_seg"]
        for h in (head, plain)
    ]
    assert calls and torch.allclose(*losses)
    calls.clear()
    head.eval().predict(features, [(64, 64)] * 2, [(64, 64)] * 2)
    assert not calls


def test_a_neck_that_cannot_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    head = build_head("bifpn1", "segmentation", PYRAMID, 5, seed=0, width=16, norm="gn")
    compile_necks(head, backend=backend)
    neck = head.merge
    maps = [torch.randn(2, 8 if i < 3 else 16, 16 >> i, 16 >> i) for i in range(4)]
    with caplog.at_level(logging.WARNING):
        found = neck(maps)
    assert "runs uncompiled" in caplog.text
    expected = build_head("bifpn1", "segmentation", PYRAMID, 5, seed=0, width=16, norm="gn").merge(maps)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_necks_that_gain_nothing_are_left_alone() -> None:
    assert compile_necks(build_head("fpn", "segmentation", PYRAMID, 5, seed=0)) == 0
    assert compile_necks(build_head("fpn-res4", "detection", PYRAMID, 5, seed=0, width=16)) == 0
    assert compile_necks(build_head("linear", "segmentation", PYRAMID, 5, seed=0)) == 0
