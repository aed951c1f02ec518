"""Epochs, repeats and steps: how long a run is, which visits it makes, and where its rate falls."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipelines.cli.arguments import parse
from pipelines.config import ScheduleConfig, TrainConfig, config_yaml
from pipelines.errors import UsageError
from pipelines.feed.joined_stores import RowIndex
from pipelines.feed.row_order import EndlessRows
from pipelines.training.optimisation.schedules import learning_rate
from pipelines.training.run_length import with_steps

RECORDS, VIEWS = 7, 3


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("head: fpn\nepochs: 12\nrepeat: 10\nbatch_size: 16\n")
    return str(path)


@pytest.mark.parametrize(
    ("epochs", "repeat", "records", "batch", "steps"),
    [
        (72, 1, 118_287, 16, 532_292),
        (12, 10, 11_829, 16, 88_718),
        (12, 10, 1_183, 16, 8_873),
        (0.1, 1, 3, 8, 1),
    ],
)
def test_steps_of_epochs(epochs: float, repeat: int, records: int, batch: int, steps: int) -> None:
    config = TrainConfig(head="fpn", epochs=epochs, repeat=repeat, batch_size=batch)
    found = with_steps(config, records)
    assert found.max_steps == steps
    assert (found.epochs, found.repeat) == (epochs, repeat)


def test_a_run_without_epochs_keeps_its_steps() -> None:
    config = TrainConfig(head="fpn", max_steps=123, repeat=10)
    assert with_steps(config, 1000) == config


def test_the_length_given_last_counts(recipe: str, tmp_path) -> None:
    assert with_steps(parse(TrainConfig, ["--recipe", recipe]), 160).max_steps == 1200
    shortened = parse(TrainConfig, ["--recipe", recipe, "--max-steps", "40"])
    assert (shortened.epochs, with_steps(shortened, 160).max_steps) == (None, 40)
    longer = parse(TrainConfig, ["--recipe", recipe, "--epochs", "24"])
    assert with_steps(longer, 160).max_steps == 2400
    over_steps = parse(TrainConfig, ["--recipe", "ade20k-linear", "--epochs", "2"])
    assert with_steps(over_steps, 160).max_steps == 20


def test_a_recorded_configuration_gives_the_same_length(recipe: str, tmp_path) -> None:
    """A resumed run starts from the file that the first one wrote, whichever of the two it was given."""
    for words in ([], ["--max-steps", "40"]):
        first = with_steps(parse(TrainConfig, ["--recipe", recipe, *words]), 160)
        recorded = tmp_path / "config.yaml"
        recorded.write_text(config_yaml(first))
        again = parse(TrainConfig, ["--config", str(recorded)])
        assert with_steps(again, 160).max_steps == first.max_steps
        assert (
            with_steps(parse(TrainConfig, ["--config", str(recorded), "--max-steps", "9"]), 160).max_steps
            == 9
        )


def test_epochs_are_a_number() -> None:
    with pytest.raises(UsageError, match="--epochs: expected a number, found 'many'"):
        parse(TrainConfig, ["--head", "fpn", "--epochs", "many"])


def test_a_repeat_is_a_further_visit() -> None:
    """One epoch of `repeat: 6` visits each record six times, and each time shows its next view."""
    keys = tuple(f"image{record}" for record in range(RECORDS) for _ in range(VIEWS))
    index = RowIndex(keys=keys, views=np.tile(np.arange(VIEWS, dtype=np.int32), RECORDS))
    config = with_steps(TrainConfig(head="fpn", epochs=1, repeat=6, batch_size=RECORDS), RECORDS)
    assert config.max_steps == 6
    rows = EndlessRows(index, batch_size=config.batch_size, seed=0)
    steps = [batch.tolist() for batch in rows.batches(0, config.max_steps)]
    visited = [[row // VIEWS for row in step] for step in steps]
    assert all(sorted(records) == list(range(RECORDS)) for records in visited)
    for record in range(RECORDS):
        views = [next(row % VIEWS for row in step if row // VIEWS == record) for step in steps]
        assert views == [(views[0] + visit) % VIEWS for visit in range(6)]
    assert set(Counter(row for step in steps for row in step).values()) == {2}


def test_the_rate_falls_at_the_milestones() -> None:
    schedule = ScheduleConfig(shape="step", milestones=(8 / 12, 11 / 12), warmup_steps=0)
    steps_of_epoch, peak = 733, 1e-3
    rates = [learning_rate(step, peak, schedule, 12 * steps_of_epoch) for step in range(12 * steps_of_epoch)]
    assert rates[: 8 * steps_of_epoch] == [peak] * (8 * steps_of_epoch)
    assert rates[8 * steps_of_epoch : 11 * steps_of_epoch] == pytest.approx([1e-4] * (3 * steps_of_epoch))
    assert rates[11 * steps_of_epoch :] == pytest.approx([1e-5] * steps_of_epoch)


def test_warm_up_leads_to_the_first_stretch() -> None:
    schedule = ScheduleConfig(shape="step", milestones=(0.5,), gamma=0.5, warmup_steps=10, warmup_start=1e-3)
    rates = [learning_rate(step, 1.0, schedule, 100) for step in (0, 5, 10, 49, 50, 99)]
    assert rates == pytest.approx([1e-3, 0.5005, 1.0, 1.0, 0.5, 0.5])


@pytest.mark.parametrize(
    "wrong",
    [{"milestones": ()}, {"milestones": (0.9, 0.5)}, {"milestones": (63.0, 69.0)}],
    ids=["none", "falling", "epochs"],
)
def test_milestones_are_rising_shares(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="milestones"):
        ScheduleConfig(shape="step", **wrong)
