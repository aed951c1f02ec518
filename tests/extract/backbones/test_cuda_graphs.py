"""Recorded launches: when they are recorded, what is held, and equal bytes on a GPU."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.backbones import cuda_graphs as replays
from extract.backbones.cuda_graphs import Replays
from extract.backbones.frozen_swin import FoldedSwin
from extract.backbones.loading import backbone_card, load_backbone
from extract.swin.block import FoldedBlock
from extract.swin.steps import BlockFunctions
from tests.extract.backbones.small import SMALL, images

Log = list[tuple[str, int]]


def replayed(log: Log, fail: Exception | None = None) -> Callable[[Tensor], Any]:
    """A function that doubles, with a recording that only notes what is asked of it."""

    def double(x: Tensor) -> dict[str, Tensor]:
        log.append(("plain", len(x)))
        return {"twice": 2 * x}

    def record(function: Callable[..., Any], inputs: tuple[Tensor, ...], shares: Any) -> Any:
        if fail is not None:
            raise fail
        log.append(("recorded", len(inputs[0])))

        def replay(x: Tensor) -> dict[str, Tensor]:
            log.append(("replayed", len(x)))
            return {"twice": 2 * x}

        return replay

    recordings = Replays(record)
    return lambda x: recordings.run(double, len, x)


def test_the_third_call_of_a_shape_is_recorded_and_later_ones_replayed() -> None:
    log: Log = []
    function = replayed(log)
    for size in (1, 2, 1, 1, 1):
        assert torch.equal(function(torch.ones(size))["twice"], torch.full((size,), 2.0))
    assert log == [
        ("plain", 1),
        ("plain", 2),
        ("plain", 1),
        ("recorded", 1),
        ("replayed", 1),
        ("replayed", 1),
    ]


def test_the_shapes_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "_SHAPES", 2)
    log: Log = []
    function = replayed(log)
    for size in (1, 2, 3):
        for _ in range(3):
            function(torch.ones(size))
    log.clear()
    for size in (2, 3, *[1] * 5):
        function(torch.ones(size))
    assert log == [("replayed", 2), ("replayed", 3), *[("plain", 1)] * 4, ("recorded", 1), ("replayed", 1)]


def test_shapes_that_take_turns_are_not_recorded_each_time() -> None:
    log: Log = []
    function = replayed(log)
    rounds, shapes = 200, range(1, 2 * replays._SHAPES + 1)
    for _ in range(rounds):
        for size in shapes:
            function(torch.ones(size))
    recorded = sum(what == "recorded" for what, _ in log)
    assert recorded <= len(shapes) * math.log2(rounds)


def test_memory_that_runs_out_is_given_back() -> None:
    alive: list[weakref.ref[Any]] = []

    def record(function: Callable[..., Any], inputs: tuple[Tensor, ...], shares: Any) -> Any:
        def replay(x: Tensor) -> dict[str, Tensor]:
            return {"same": x}

        alive.append(weakref.ref(replay))
        return replay

    def same(x: Tensor) -> dict[str, Tensor]:
        if len(x) > 1:
            raise torch.OutOfMemoryError("no memory")
        return {"same": x}

    recordings = Replays(record)
    for _ in range(3):
        recordings.run(same, len, torch.ones(1))
    assert alive[0]() is not None
    with pytest.raises(torch.OutOfMemoryError):
        recordings.run(same, len, torch.ones(2))
    assert alive[0]() is None


def test_a_function_that_cannot_be_recorded_runs_plain(caplog: pytest.LogCaptureFixture) -> None:
    log: Log = []
    function = replayed(log, RuntimeError("operation not permitted when stream is capturing\nmore"))
    with caplog.at_level(logging.WARNING, "extract.backbones.cuda_graphs"):
        for _ in range(5):
            function(torch.ones(1))
    assert log == [("plain", 1)] * 5
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith("launched one by one: operation not permitted when stream is capturing")


def test_running_out_of_memory_does_not_disable_cuda_graphs() -> None:
    """The caller makes its batches smaller."""
    function = replayed([], torch.OutOfMemoryError("CUDA out of memory"))
    for _ in range(2):
        function(torch.ones(1))
    with pytest.raises(torch.OutOfMemoryError):
        function(torch.ones(1))


@pytest.mark.parametrize("hw", [(96, 160), (124, 188)])
def test_everything_a_forward_reads_is_held(hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches drop what was used long ago; a recording would read on where it was."""
    network = load_backbone(backbone_card("swinv2-t", SMALL), "random:0").network
    assert isinstance(network, FoldedSwin)
    held, used = network.shared_constants(*hw, torch.device("cpu")), []
    whole = FoldedBlock.forward

    def noted(self: FoldedBlock, x_NHWC: Tensor, functions: BlockFunctions, *rest: Any) -> Any:
        used.append(self.shared_constants(tuple(x_NHWC.shape[1:3]), functions, x_NHWC.device))
        return whole(self, x_NHWC, functions, *rest)

    monkeypatch.setattr(FoldedBlock, "forward", noted)
    with torch.inference_mode():
        network(torch.rand(1, *hw, 3))
    assert [id(plan) for plan, *_ in held] == [id(plan) for plan, *_ in used]  # type: ignore[misc]


def test_sums_for_cut_windows_are_made_before_a_recording_and_held() -> None:
    """A block keeps those of one size of window: what a recording makes or others replace is lost to it."""
    network = load_backbone(backbone_card("swinv2-t", SMALL, window_rule="cover"), "random:0").network
    assert isinstance(network, FoldedSwin)
    last = [step for step in network.steps if isinstance(step, FoldedBlock)][-1]
    with torch.inference_mode():
        for hw in [(96, 128), (64, 96)]:  # other images came in between
            network(torch.rand(1, *hw, 3))
        held: Any = network.shared_constants(96, 128, torch.device("cpu"))
        made = dict(last._kept)
        assert set(made) == {((3, 4), (False, False), torch.device("cpu"))}
        network(torch.rand(1, 96, 128, 3))
        (used,) = last._kept.values()
        network(torch.rand(1, 64, 96, 3))
    *_, (sums,) = held[-1]
    assert sums.data_ptr() == used.data_ptr() == next(iter(made.values())).data_ptr()
    assert set(last._kept) == {((2, 3), (False, False), torch.device("cpu"))}


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["partition", "cover"])
@pytest.mark.parametrize("model", ["swinv2-t", "swinv2-g"])
def test_replayed_levels_have_the_bytes_of_launched_ones(model: str, rule: str) -> None:
    args = {"depths": [2, 1, 2, 1], "embed_dim": 64, "num_heads": [2, 4, 8, 16]}
    card = backbone_card(model, {**args, "window_size": [8, 8, 8, 4]}, window_rule=rule)
    backbone, plain = (load_backbone(card, "random:0", device="cuda") for _ in range(2))
    plain._replays = None
    for hw in [(128, 160), (92, 124), (128, 160)]:
        batches = [[x.cuda() for x in images(2, hw, seed)] for seed in range(5)]
        expected = [plain(*batch) for batch in batches]
        found = [backbone(*batch) for batch in batches]  # only then compared: results are the caller's own
        for ours, theirs in zip(found, expected, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
