"""A Lightning trainer of the user's own over our module and data: epochs, monitors, validation, resuming."""

from __future__ import annotations

import csv
import logging
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from pipelines.config import ScheduleConfig, TrainConfig
from pipelines.errors import UsageError
from pipelines.evaluation.store_measure import StoreMeasure
from pipelines.feed.datamodule import StoreData, Stretch
from pipelines.feed.joined_stores import JoinedStores
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.training.build_module import build_module
from pipelines.training.fit import fit, quieten_lightning
from pipelines.training.module import HeadModule, keyed_seed
from pipelines.training.validation import Validation
from stores.errors import IdentityError
from stores.reading.reader import open_store
from tests.pipelines.made_stores import make_store

RECORDS, BATCH = 12, 5
AN_EPOCH = math.ceil(RECORDS / BATCH)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("stores")
    return make_store(root, records=RECORDS), make_store(root, split="validation", records=4, views=1)


@pytest.fixture
def config(stores: tuple[Path, Path]) -> TrainConfig:
    return config_of(stores[0])


def config_of(store: Path, **more: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "head": "linear",
            "store": (str(store),),
            "batch_size": BATCH,
            "max_steps": 2 * AN_EPOCH,
            "schedule": ScheduleConfig(warmup_steps=0),
            **more,
        }
    )


@pytest.fixture(autouse=True)
def quiet() -> None:
    quieten_lightning()


class Seen(Callback):
    """The records of each batch, and the gradients of each step."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, ...]] = []
        self.gradients: list[list[torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, _: int) -> None:
        self.keys.append(batch.keys)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients.append([p.grad.clone() for p in pl_module.parameters() if p.grad is not None])


def open_both(config: TrainConfig) -> tuple[HeadModule, StoreData]:
    assert config.store is not None
    data = StoreData(JoinedStores.open([Path(config.store[0])], verify="always", threads=1), config)
    return build_module(config, data), data


def train(
    config: TrainConfig, *callbacks: Callback, ckpt_path: str | None = None, **of_trainer: Any
) -> Trainer:
    """Trains the configuration's head with a trainer of these settings."""
    module, data = open_both(config)
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "callbacks": list(callbacks),
            "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **of_trainer,
        }
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=ckpt_path is not None)
    data.close()
    return trainer


def rows_of_steps(config: TrainConfig, stop: int) -> list[tuple[str, ...]]:
    """The records that `train-head` would show in each step."""
    _, data = open_both(config)
    found = [batch.keys for batch in data.batches(Stretch(start_step=0, stop_step=stop, device=CPU))]
    data.close()
    return found


def test_one_epoch_is_one_pass(config: TrainConfig, recwarn: pytest.WarningsRecorder) -> None:
    """It trained on nothing before, without a word."""
    seen = Seen()
    trainer = train(config, seen, max_epochs=1)
    assert trainer.global_step == len(seen.keys) == AN_EPOCH == 3
    assert {key for keys in seen.keys for key in keys} == {f"training-{record}" for record in range(RECORDS)}
    assert not [each for each in recwarn if "is zero" in str(each.message)]  # of no test store


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 3}, 9),
        ({"max_steps": 4}, 4),
        ({"max_epochs": 2, "max_steps": 4}, 4),
        ({"max_epochs": 2, "max_steps": 40}, 6),
        ({"max_epochs": 2, "limit_train_batches": 2}, 4),
        ({"fast_dev_run": True}, 1),
    ],
    ids=str,
)
def test_the_rows_of_a_step_do_not_depend_on_epochs(
    config: TrainConfig, limits: dict[str, Any], steps: int
) -> None:
    seen = Seen()
    assert train(config, seen, **limits).global_step == steps
    assert seen.keys == rows_of_steps(config, steps)


def test_a_trainer_without_limits_is_stopped_by_a_callback(config: TrainConfig) -> None:
    stopping = EarlyStopping("loss", divergence_threshold=-1.0, check_on_train_epoch_end=True)
    assert train(config, stopping, max_epochs=-1, limit_train_batches=5).global_step == 5


def test_gradients_are_accumulated(config: TrainConfig) -> None:
    """Those of the first batch were dropped before the second."""
    seen = Seen()
    assert train(config, seen, max_steps=2, accumulate_grad_batches=2).global_step == 2
    assert seen.keys == rows_of_steps(config, 4)
    module, data = open_both(config)
    for batch in data.batches(Stretch(start_step=0, stop_step=2, device=CPU)):
        generator = torch.Generator().manual_seed(keyed_seed(config.seed, "step", 0, 0))
        losses = module.head.losses(batch.features, batch.targets, batch.valid_hw, generator)
        (sum(losses.values()) / 2).backward()
    data.close()
    expected = [p.grad for p in module.parameters() if p.grad is not None]
    assert len(seen.gradients[0]) == len(expected) > 0
    for mine, theirs in zip(seen.gradients[0], expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_run_resumed_within_an_epoch_is_the_whole_run(
    config: TrainConfig, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    saved = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = train(config, saved, max_epochs=2)
    for step in (1, 2, 3, 4):
        seen = Seen()
        again = train(config, seen, max_epochs=2, ckpt_path=str(tmp_path / f"step={step}.ckpt"))
        assert again.global_step == 2 * AN_EPOCH
        assert seen.keys == rows_of_steps(config, 2 * AN_EPOCH)[step:]
        for mine, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert not [each for each in recwarn if "resuming from" in str(each.message)]


def test_callbacks_monitor_the_loss(config: TrainConfig, tmp_path: Path) -> None:
    best = ModelCheckpoint(dirpath=tmp_path, monitor="loss", every_n_train_steps=1)
    stopping = EarlyStopping("loss", patience=1, min_delta=1e9)
    trainer = train(config, best, stopping, max_epochs=9)
    assert trainer.global_step == 2 * AN_EPOCH  # no epoch is better than the first by so much
    assert best.best_model_score is not None and 0 < float(best.best_model_score) < 10
    assert Path(best.best_model_path).is_file()


def test_callbacks_monitor_the_scores(stores: tuple[Path, Path], tmp_path: Path) -> None:
    config = config_of(stores[0], val_store=str(stores[1]))
    best = ModelCheckpoint(dirpath=tmp_path, monitor="mIoU", mode="max")
    stopping = EarlyStopping("pixel_accuracy", mode="max", patience=9)
    trainer = train(config, best, stopping, max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    module = trainer.lightning_module
    assert isinstance(module, HeadModule)
    with open_store(stores[1]) as store:
        scores = StoreMeasure(store, bf16=False)(module.eval())
    found = {name: float(trainer.callback_metrics[name]) for name in scores}
    assert found == pytest.approx(scores) and set(found) == {"mIoU", "pixel_accuracy"}
    assert float(stopping.best_score) > 0 and best.best_model_score is not None
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        lines = list(csv.DictReader(file))
    assert sum(bool(line["loss"]) for line in lines) == 2 * AN_EPOCH
    assert [float(line["mIoU"]) for line in lines if line["mIoU"]][-1] == pytest.approx(scores["mIoU"])


def test_validation_follows_the_trainers_settings(
    stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the steps asked for, and not as a check before the first one."""
    measured: list[int] = []
    monkeypatch.setattr(
        StoreMeasure, "__call__", lambda self, module: measured.append(module.global_step) or {"mIoU": None}
    )
    config = config_of(stores[0], val_store=str(stores[1]))
    train(config, max_steps=6, max_epochs=-1, val_check_interval=2, check_val_every_n_epoch=None)
    assert measured == [2, 4, 6]


def test_a_store_of_another_backbone_is_not_measured_on(stores: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_store(tmp_path, split="validation", records=2, views=1, weights="cd" * 32)
    with pytest.raises(IdentityError, match="weights_sha256"):
        train(config_of(stores[0], val_store=str(other)), max_epochs=1)


def test_the_callback_of_train_head_serves_monitors_too(
    stores: tuple[Path, Path], config: TrainConfig, tmp_path: Path
) -> None:
    best = ModelCheckpoint(dirpath=tmp_path, monitor="mIoU", mode="max", every_n_train_steps=2)
    with open_store(stores[1]) as store:
        validation = Validation(StoreMeasure(store, bf16=False), every=2, max_steps=4)
        train(config, validation, best, max_steps=4)
    last = validation.last["mIoU"]
    assert last is not None and best.best_model_score is not None
    assert 0 < last <= float(best.best_model_score) + 1e-6


def test_a_run_logs_what_it_logged(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """metrics.csv holds the steps of --log-every and of validation, and nothing of the module's own log."""
    config = config_of(stores[0], log_every=2, max_steps=4)
    module, data = open_both(config)
    (tmp_path / runs.CHECKPOINTS).mkdir()
    with open_store(stores[1]) as store:
        validation = Validation(StoreMeasure(store, bf16=False), every=3, max_steps=4)
        fit(config, module, data, tmp_path, CPU, validation=validation)
    data.close()
    lines = read_metrics(tmp_path / runs.METRICS)
    assert [line["step"] for line in lines] == ["2", "3", "4", "4"]
    assert set(lines[1]) == {"step", "mIoU", "pixel_accuracy"}
    assert set(lines[0]) == set(lines[2]) and {"step", "lr", "loss", "rows_per_s"} < set(lines[0])
    assert "epoch" not in lines[0]


def test_batches_need_a_trainer(config: TrainConfig) -> None:
    _, data = open_both(config)
    with pytest.raises(UsageError, match=r"none is attached; call Trainer.fit\(module, datamodule=data\)"):
        data.train_dataloader()
    data.close()


@pytest.mark.parametrize(("planned", "warns"), [(6, False), (160_000, True)])
def test_a_learning_rate_planned_for_other_steps(
    stores: tuple[Path, Path], caplog: pytest.LogCaptureFixture, planned: int, warns: bool
) -> None:
    with caplog.at_level(logging.WARNING, "pipelines"):
        train(config_of(stores[0], max_steps=planned), max_epochs=2)
    found = [record.message for record in caplog.records if "learning rate is planned" in record.message]
    assert bool(found) == warns
    assert not warns or ("makes 6 steps" in found[0] and "max_steps=160000" in found[0])


def test_reading_ends_with_the_training(config: TrainConfig) -> None:
    before = set(threading.enumerate())
    module, data = open_both(config)
    for _ in range(2):  # the data serve a second training
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=4, limit_train_batches=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == 4
    assert [t.name for t in set(threading.enumerate()) - before if t.name == "store-feed"] == []
    data.close()
