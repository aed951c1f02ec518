"""Several heads on one stream of batches: each trains as it would alone, and fails alone."""

from __future__ import annotations

import json
import re
import shutil
import threading
import weakref
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from heads.segmentation.linear import LinearHead
from pipelines.__main__ import main
from pipelines.cli.head_variants import parse_command
from pipelines.config import ManyHeadsConfig, TrainConfig
from pipelines.errors import UsageError
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.store_feed import Batch, StoreFeed
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import load_head
from pipelines.training.module import HeadModule
from pipelines.training.several_runs.take_turns import SharedBatches
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.made_stores import make_store

STEPS, BATCH = 4, 4
HEADS = {
    "bifpn": {"head": "bifpn1", "head_settings": {"width": 16, "norm": "gn", "dropout": 0.5}},
    "masks": {"head": "m2f-pd1-td3", "head_settings": {"width": 32, "queries": 8, "points": 112}, "lr": 3e-4},
    "linear": {"head": "linear", "lr": 1e-2, "head_settings": {"dropout": 0.3}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("features"), records=24)


def shared(store: Path) -> dict[str, Any]:
    return {
        "store": [str(store)],
        "device": "cpu",
        "threads": 1,
        "batch_size": BATCH,
        "max_steps": STEPS,
        "log_every": 1,
        "checkpoint_every": 2,
        "keep_checkpoints": 0,
        "schedule": {"warmup_steps": 0},
    }


def train(tmp_path: Path, settings: dict[str, Any], *words: str) -> int:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return main(["train-head", "--config", str(path), *words])


@pytest.fixture(scope="module")
def alone(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the heads' separate runs."""
    folder = tmp_path_factory.mktemp("alone")
    for name, settings in HEADS.items():
        assert train(folder, {**shared(store), **settings}, "--run", str(folder / name)) == 0
    return folder


@pytest.fixture(scope="module")
def together(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same runs side by side."""
    folder = tmp_path_factory.mktemp("together")
    rows: list[int] = []
    read = JoinedStores.read_encoded

    def counted(self: JoinedStores, asked: Any, *args: Any) -> Any:
        rows.append(len(asked))
        return read(self, asked, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JoinedStores, "read_encoded", counted)
        assert train(folder, {**shared(store), "heads": HEADS}, "--run", str(folder / "group")) == 0
    assert sum(rows) == STEPS * BATCH, "as many rows are read as by one run"
    return folder / "group"


def assert_same_run(run: Path, other: Path) -> None:
    """Every logged loss, and every weight and moment of the last checkpoint, to the last bit."""
    assert losses_of(run) == losses_of(other)
    assert list(runs.checkpoints(run)) == list(runs.checkpoints(other))
    mine, theirs = (torch.load(runs.last_checkpoint(folder)[1], weights_only=True) for folder in (run, other))
    assert mine["state_dict"].keys() == theirs["state_dict"].keys()
    moments = [list(each["optimizer_states"][0]["state"].values()) for each in (mine, theirs)]
    pairs = [(value, theirs["state_dict"][name]) for name, value in mine["state_dict"].items()]
    pairs += [(a[name], b[name]) for a, b in zip(*moments, strict=True) for name in a]
    assert all(torch.equal(a, b) for a, b in pairs)


def losses_of(run: Path) -> list[dict[str, str]]:
    timed = ("rows_per_s", "waited_share", "read_mb_s")
    return [
        {name: value for name, value in row.items() if name not in timed}
        for row in read_metrics(run / runs.METRICS)
    ]


@pytest.mark.parametrize("name", HEADS)
def test_each_head_trains_as_it_would_alone(name: str, together: Path, alone: Path) -> None:
    assert len(losses_of(alone / name)) == STEPS
    assert_same_run(together / name, alone / name)
    mine, theirs = (runs.read_run(folder / name) for folder in (together, alone))
    assert mine == theirs
    assert load_head(together / name, torch.device("cpu"))[1] == STEPS


def test_a_group_is_no_run(together: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(together)]) == 2
    assert "it contains runs, pass one of: bifpn, linear, masks" in capsys.readouterr().err


def test_all_heads_resume_together_from_different_steps(together: Path, alone: Path, tmp_path: Path) -> None:
    group = tmp_path / "group"
    shutil.copytree(together, group)
    for name, last in (("bifpn", 2), ("masks", 4), ("linear", 0)):
        for step, path in runs.checkpoints(group / name).items():
            if step > last:
                path.unlink()
    assert main(["train-head", "--resume", "--run", str(group)]) == 0
    for name in HEADS:
        assert_same_run(group / name, alone / name)


@pytest.mark.parametrize("how", ["diverges", "runs out of memory"])
def test_a_head_that_fails_is_stopped_and_the_others_continue(
    how: str,
    store: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    heads = {"bad": {"head": "linear", "lr": 1e30}, "bifpn": HEADS["bifpn"]}
    if how == "runs out of memory":
        heads["bad"] = {"head": "linear"}
        losses, calls = LinearHead.losses, count()

        def out_of_memory(self: LinearHead, *args: Any) -> Any:
            if threading.current_thread().name == "head-bad" and next(calls) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return losses(self, *args)

        monkeypatch.setattr(LinearHead, "losses", out_of_memory)
    group = tmp_path / "group"
    assert train(tmp_path, {**shared(store), "heads": heads}, "--run", str(group), "--json") == 1
    out, err = capsys.readouterr()
    assert "1 of 2 heads were stopped: bad stopped at step" in err
    assert ("is not finite" if how == "diverges" else "out of memory") in err
    summary = json.loads(out.splitlines()[-1])
    assert "stopped" in summary["heads"]["bad"] and summary["heads"]["bifpn"]["steps"] == STEPS
    assert_same_run(group / "bifpn", alone / "bifpn")
    assert list(json.loads((group / "heads.json").read_text())["stopped"]) == ["bad"]
    if how == "runs out of memory":  # what was stopped stays so, and the others can be trained on
        assert main(["train-head", "--resume", "--run", str(group), "--max-steps", "5"]) == 0
        assert max(runs.checkpoints(group / "bifpn")) == 5
        assert max(runs.checkpoints(group / "bad")) == 2


def test_memory_holds_one_batch_and_one_heads_gradients(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is alive while a head trains: the batch it was given, and no other head's gradients."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    modules: list[HeadModule] = []
    most = []
    made, step = StoreFeed.__next__, HeadModule.training_step

    def watched(self: StoreFeed) -> Batch:
        batch = made(self)
        alive.update(batch.features.values())
        most.append(len(alive) // len(batch.features))
        return batch

    def checked(self: HeadModule, batch: Batch, number: int) -> torch.Tensor:
        if self not in modules:
            modules.append(self)
        assert all(p.grad is None for other in modules for p in other.parameters())
        return step(self, batch, number)

    monkeypatch.setattr(StoreFeed, "__next__", watched)
    monkeypatch.setattr(HeadModule, "training_step", checked)
    heads = {"a": HEADS["linear"], "b": HEADS["linear"]}
    settings = {**shared(store), "heads": heads, "max_steps": 4}
    assert train(tmp_path, settings, "--run", str(tmp_path / "group")) == 0
    assert len(modules) == 2 and most == [1] * 4


def test_heads_that_see_other_batches_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(make_store(tmp_path / "other", records=4, seed=5))
    fpn = {"head": "fpn"}
    for differing, message in (
        ({"head": "linear", "batch_size": 2}, "batch_size is 4 for a and 2 for b"),
        ({"head": "linear", "seed": 1}, "seed is 0 for a and 1 for b"),
        ({"head": "linear", "store": [other]}, "share their stores"),
        ({"head": "maskrcnn-fpn"}, "segmentation"),
    ):
        heads = {"a": fpn, "b": differing}
        assert train(tmp_path, {**shared(store), "heads": heads}, "--run", str(tmp_path / "no")) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "no").exists()


def test_a_store_that_loses_shards_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first step, when no more than the ring's rows, of 30 shards, have been read."""
    broken = make_store(tmp_path, records=120, views=1)
    losses = LinearHead.losses

    def lose(self: LinearHead, *args: Any) -> Any:
        for shard in broken.glob("bins/64x64/levels/p5/q/c/*/0/0/0"):
            shard.unlink()
        return losses(self, *args)

    monkeypatch.setattr(LinearHead, "losses", lose)
    heads = {name: HEADS[name] for name in ("bifpn", "linear")}
    settings = {**shared(broken), "heads": heads, "max_steps": 40}
    assert train(tmp_path, settings, "--run", str(tmp_path / "group")) == 4
    message = capsys.readouterr().err
    assert re.search(rf"{re.escape(str(broken))}: bins/64x64/levels/p5/q/c/\d+/0/0/0 is missing", message)
    assert json.loads((tmp_path / "group" / "heads.json").read_text())["stopped"] == {}


def test_heads_and_rates_by_flags() -> None:
    words = ["--head", "fpn,bifpn1", "--lr", "1e-3,2e-3", "--batch-size", "8", "--run", "runs/a"]
    config = parse_command(TrainConfig, words)
    assert isinstance(config, ManyHeadsConfig) and config.run == "runs/a"
    found = {name: (each.head, each.optimizer.lr, each.batch_size) for name, each in config.heads.items()}
    assert found == {
        f"{head}-lr{rate}": (head, float(rate), 8) for head in ("fpn", "bifpn1") for rate in ("1e-3", "2e-3")
    }
    assert all(each.run is None for each in config.heads.values())
    assert isinstance(parse_command(TrainConfig, ["--head", "fpn", "--lr", "1e-3"]), TrainConfig)


def test_heads_and_rates_in_one_file(tmp_path: Path) -> None:
    """As lists, and as entries with settings of their own beside those they share."""
    path = tmp_path / "grid.yaml"
    path.write_text("head: [fpn, linear]\noptimizer: {lr: [1.0e-3, 2.0e-3], weight_decay: 0.1}\n")
    config = parse_command(TrainConfig, ["--config", str(path), "--seed", "3"])
    assert isinstance(config, ManyHeadsConfig) and len(config.heads) == 4
    assert {(each.seed, each.optimizer.weight_decay) for each in config.heads.values()} == {(3, 0.1)}
    path.write_text(
        "batch_size: 8\nheads:\n  narrow: {head: fpn, head_settings.width: 64}\n  one: {head: fpn}"
    )
    config = parse_command(TrainConfig, ["--config", str(path), "--lr", "1e-3,3e-3"])
    assert isinstance(config, ManyHeadsConfig)
    found = [(n, c.head_settings, c.optimizer.lr, c.batch_size) for n, c in config.heads.items()]
    assert found == [
        ("narrow-lr1e-3", {"width": 64}, 1e-3, 8),
        ("narrow-lr3e-3", {"width": 64}, 3e-3, 8),
        ("one-lr1e-3", {}, 1e-3, 8),
        ("one-lr3e-3", {}, 3e-3, 8),
    ]


def test_each_head_keeps_its_own_recipe() -> None:
    config = parse_command(TrainConfig, ["--head", "fpn,m2f-pd1-td3", "--dataset", "ade20k"])
    assert isinstance(config, ManyHeadsConfig)
    rates = {name: (each.optimizer.lr, each.optimizer.clip_norm) for name, each in config.heads.items()}
    assert rates == {"fpn": (2e-3, None), "m2f-pd1-td3": (3e-4, 0.01)}


def test_a_printed_config_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-head", "--head", "fpn,bifpn1", "--lr", "1e-3", "--print-config"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    again = parse_command(TrainConfig, ["--config", str(tmp_path / "printed.yaml")])
    assert again == parse_command(TrainConfig, ["--head", "fpn,bifpn1", "--lr", "1e-3"])


def test_head_names_must_be_valid_folder_names(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("heads: {../up: {head: fpn}, b: {head: fpn}}\n")
    with pytest.raises(UsageError, match="it names a folder"):
        parse_command(TrainConfig, ["--config", str(tmp_path / "c.yaml")])


def run_seats(first_steps: list[int], steps: list[int], leave: dict[int, int]) -> tuple[list[Any], list[int]]:
    """What each seat did, in the order it was done, and the batches that were made."""
    made: list[int] = []

    def source() -> Iterator[int]:
        for step in count(min(first_steps)):
            made.append(step)
            yield step

    shared = SharedBatches(source(), first_steps)
    log: list[Any] = []

    def train(seat: int) -> None:
        shared.turns.wait(seat)
        batches = shared.batches(seat)
        for step in range(first_steps[seat], steps[seat]):
            if leave.get(seat) == step:
                break
            assert next(batches) == step
            log.append((step, seat))
        shared.leave(seat)

    threads = [threading.Thread(target=train, args=(seat,), daemon=True) for seat in range(len(first_steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    return log, made


@pytest.mark.parametrize(
    ("first_steps", "steps", "leave"),
    [
        ([0], [3], {}),
        ([0, 0, 0], [4, 4, 4], {}),
        ([2, 0, 5], [6, 7, 6], {}),
        ([0, 0, 0], [6, 2, 4], {}),
        ([0, 0, 0], [5, 5, 5], {0: 0, 2: 3}),
    ],
)
def test_every_seat_gets_each_of_its_batches_in_turn(
    first_steps: list[int], steps: list[int], leave: dict[int, int]
) -> None:
    log, made = run_seats(first_steps, steps, leave)
    expected = [
        (step, seat)
        for step in range(min(first_steps), max(steps))
        for seat in range(len(steps))
        if first_steps[seat] <= step < min(steps[seat], leave.get(seat, steps[seat]))
    ]
    assert sorted(log) == expected
    assert [step for step, _ in log] == [step for step, _ in expected]
    assert made == sorted({step for step, _ in expected})


def test_a_batch_is_freed_with_its_last_taker() -> None:
    shared = SharedBatches(iter("abc"), [0, 0])
    taken: list[tuple[int, str | None]] = []

    def train(seat: int) -> None:
        shared.turns.wait(seat)
        batches = shared.batches(seat)
        for _ in range(3):
            next(batches)
            taken.append((seat, shared._batch))
        shared.leave(seat)

    threads = [threading.Thread(target=train, args=(seat,)) for seat in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert taken == [(0, "a"), (1, None), (0, "b"), (1, None), (0, "c"), (1, None)]
