"""How often a step makes the host wait for the GPU: as often as listed, and no more."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config import ScheduleConfig, TrainConfig
from pipelines.feed.datamodule import StoreData
from pipelines.feed.joined_stores import JoinedStores
from pipelines.training.build_module import build_module
from pipelines.training.fit import fit
from pipelines.training.module import HeadModule
from tests.pipelines.made_stores import make_store

WAITS = {
    "linear": 0,
    "bifpn1": 0,
    "m2f-pd1-td3": 1,  # the costs of its assignments, which the host solves (heads/mask2former/matching.py)
}
"""By head, in a step that is neither logged nor saved."""
STEPS, WARMUP = 12, 6


@pytest.mark.gpu
@pytest.mark.parametrize("head", WAITS)
def test_a_step_waits_for_the_gpu_only_where_listed(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(
        head=head,
        store=(str(make_store(tmp_path, codec_name="int8")),),
        batch_size=4,
        max_steps=STEPS,
        schedule=ScheduleConfig(warmup_steps=0),
        device="cuda",
        log_every=STEPS,
        compile="none",
    )
    waits: Counter[int] = Counter()
    start, end = HeadModule.on_train_batch_start, HeadModule.on_train_batch_end

    def began(self: HeadModule, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("warn")
        start(self, *args)

    def ended(self: HeadModule, *args: Any) -> None:
        end(self, *args)
        torch.cuda.set_sync_debug_mode("default")

    def count(message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            waits[module.global_step] += 1

    monkeypatch.setattr(HeadModule, "on_train_batch_start", began)
    monkeypatch.setattr(HeadModule, "on_train_batch_end", ended)
    data = StoreData(JoinedStores.open([Path(config.store[0])], verify="always", threads=1), config)  # type: ignore[index]
    module = build_module(config, data)
    (tmp_path / "checkpoints").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", count)
        fit(config, module, data, tmp_path, torch.device("cuda", 0))
    data.close()
    found = {step: waits[step] for step in range(WARMUP, STEPS - 1)}
    assert found == dict.fromkeys(range(WARMUP, STEPS - 1), WAITS[head])
