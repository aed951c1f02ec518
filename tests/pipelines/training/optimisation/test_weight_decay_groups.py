"""Runs that began when no norm had weight decay: resumed with the groups their checkpoints have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from heads.segmentation.upernet import UPerNet
from pipelines.__main__ import main
from pipelines.errors import USAGE
from pipelines.runs.run_folder import checkpoint_path
from pipelines.training.optimisation import optimizer
from tests.pipelines.made_stores import make_store


def train(*words: str) -> int:
    return main(["train-head", "--batch-size", "2", "--val-every", "0", "--device", "cpu", *words])


def begin(store: Path, run: Path) -> int:
    settings = ["--head-settings.width", "16", "--head-settings.norm", "gn"]
    return train("--head", "bifpn1", *settings, "--store", str(store), "--run", str(run), "--max-steps", "1")


def group_sizes(run: Path, step: int) -> list[tuple[int, float]]:
    state = torch.load(checkpoint_path(run, step), weights_only=True)["optimizer_states"][0]
    return [(len(group["params"]), group["weight_decay"]) for group in state["param_groups"]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path, records=4, views=1)


@pytest.mark.parametrize("began_before", [True, False])
def test_a_resumed_run_keeps_its_groups(
    began_before: bool, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as before:
        if began_before:
            before.setattr(UPerNet, "decays_norms", False)
        assert begin(store, run) == 0
    began = group_sizes(run, 1)
    (_, decay), (without, none) = began
    assert decay > none == 0
    assert (without > 8) is began_before  # the four input norms alone have 8
    assert train("--resume", "--run", str(run), "--max-steps", "2") == 0
    assert group_sizes(run, 2) == began


def test_other_groups_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def first_norm(head: UPerNet, decays_norms: bool | None = None) -> list[torch.nn.Parameter]:
        return [head.input_norms[0].weight]

    with monkeypatch.context() as other:
        other.setattr(optimizer, "undecayed_parameters", first_norm)
        assert begin(store, run) == 0
    (decayed, _), (free, _) = group_sizes(run, 1)
    capsys.readouterr()
    assert train("--resume", "--run", str(run), "--max-steps", "2") == USAGE
    message = capsys.readouterr().err
    assert f"groups of {decayed}, {free} parameters" in message and "start a new run" in message
