"""Without a compiler backbones run uncompiled, and a warning gives the reason."""

from __future__ import annotations

import logging

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from extract.backbones import compiler


@pytest.fixture(autouse=True)
def forget_trials() -> None:
    compiler.compiles.cache_clear()


@pytest.mark.parametrize(
    "error",
    [TorchDynamoException("Failed to find C compiler.\nMore"), ImportError("no triton"), RuntimeError()],
    ids=repr,
)
def test_a_gpu_without_a_compiler_warns_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(device: torch.device) -> None:
        raise error

    monkeypatch.setattr(compiler, "_compile_something", fails)
    with caplog.at_level(logging.WARNING, "extract.backbones.compiler"):
        assert [compiler.compiles(torch.device("cuda", 0)) for _ in range(2)] == [False, False]
    (record,) = caplog.records
    expected = (str(error) or repr(error)).splitlines()[0]
    assert record.getMessage() == f"backbones run uncompiled, at half the speed or less: {expected}"


def test_the_trial_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_compile_something", lambda device: None)
    assert compiler.compiles(torch.device("cuda", 0))
    assert not compiler.compiles(torch.device("cpu"))
