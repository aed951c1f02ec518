"""What only heads of clips need of training: their schedule, and which of their weights do not decay."""

import math
from pathlib import Path

import pytest

from extract.backbones.loading import backbone_card
from extract.datasets import view_recipe
from extract.planning.padding_tokens import padding_shares
from heads import build_head, head_settings
from pipelines.cli.arguments import parse
from pipelines.config import EvaluateConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.reporting.paper_results import view_differences
from pipelines.training.optimisation.optimizer import undecayed_parameters
from pipelines.training.optimisation.schedules import learning_rate, warmup_steps
from pipelines.training.run_length import with_steps
from pipelines.verbs import evaluate, train_head
from stores.format.plan import Bin
from tests.heads.pyramids import clip_pyramid
from tests.pipelines.made_clip_stores import make_clip_store


def test_warm_up_by_share_keeps_the_shape_of_any_length() -> None:
    """Table 13: 2.5 of 30 epochs, then a cosine."""
    schedule = ScheduleConfig(shape="cosine", warmup_share=2.5 / 30, warmup_start=1e-6)
    for steps_of_epoch in (4, 3757):
        steps = 30 * steps_of_epoch
        rates = [
            learning_rate(round(epoch * steps_of_epoch), 3e-4, schedule, steps)
            for epoch in (0, 1.25, 2.5, 15)
        ]
        decays = [(1 + math.cos(math.pi * epoch / 30)) / 2 for epoch in (0, 1.25, 2.5, 15)]
        expected = [3e-4 * decay * share for decay, share in zip(decays, (1e-6, 0.5, 1, 1), strict=True)]
        assert rates == pytest.approx(expected, rel=1e-2)


def test_a_share_outside_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_share 2\.5"):
        ScheduleConfig(warmup_share=2.5)


def test_blocks_decay_their_projections_alone() -> None:
    """The norms, the biases of q and v, the logit scales and the network of the position bias do not."""
    head = build_head("global2", "video", clip_pyramid(32), 5)
    exempt = {id(parameter) for parameter in undecayed_parameters(head)}
    decayed = {name for name, parameter in head.named_parameters() if id(parameter) not in exempt}
    matrices = ("attention.qkv.weight", "attention.projection.weight", "mlp.0.weight", "mlp.2.weight")
    biases = ("attention.projection.bias", "mlp.0.bias", "mlp.2.bias")
    inside = {f"blocks.{block}.{name}" for block in (0, 1) for name in (*matrices, *biases)}
    assert decayed == inside | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("head", ["linear", "temporal4", "global2"])
def test_the_recipe_of_kinetics_is_table_13s(head: str) -> None:
    config = with_steps(parse(TrainConfig, ["--head", head, "--dataset", "k400"]), 240_000)
    assert (config.recipe, config.epochs, config.batch_size) == ("k400-frozen", 30, 64)
    assert config.optimizer == OptimizerConfig(lr=3e-4, weight_decay=0.05, betas=(0.9, 0.999))
    assert (config.schedule.shape, config.max_steps) == ("cosine", 112_500)
    assert warmup_steps(config.schedule, config.max_steps) == 2.5 * 240_000 / 64
    settings = head_settings(head, "video")
    assert settings.dropout == 0.5 and getattr(settings, "drop_path", 0.2) == 0.2
    assert settings.input_norm == "none"


def test_the_recipe_of_swinv2_g_is_that_of_its_appendix() -> None:
    base = parse(TrainConfig, ["--recipe", "k400-frozen", "--head", "global4"])
    giant = parse(TrainConfig, ["--recipe", "k400-swinv2-g-frozen"])
    assert (giant.head, giant.batch_size, giant.optimizer.lr) == ("global4", 128, 2e-4)
    assert giant.head_settings == {"drop_path": 0.1}
    card = backbone_card("swinv2-g", giant.model_args, window_rule="cover")
    bins = [Bin(height_px=256, width_px=256, rows=1, shard_rows=1)]
    assert card.windows[2] == (16, 16) and padding_shares(card, bins) == (0, 0, 0, 0)
    assert (giant.epochs, giant.schedule, giant.optimizer.weight_decay) == (30, base.schedule, 0.05)


def test_a_run_from_a_store_to_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a skipped record; classes that differ only in frame order are learned, measured on 12 views."""
    stores = tmp_path / "features"
    make_clip_store(stores, skipped=frozenset({"train-3"}))
    val = make_clip_store(stores, split="val", records=8, views=12)
    words = [
        "--head",
        "temporal1",
        "--stores",
        str(stores),
        "--run",
        str(tmp_path / "run"),
        "--val-every",
        "0",
    ]
    words += ["--max-steps", "60", "--batch-size", "8", "--lr", "3e-2", "--head-settings.drop_path", "0.0"]
    trained = train_head.run(parse(TrainConfig, words))
    figures = evaluate.run(EvaluateConfig(run=str(tmp_path / "run")))
    assert trained["top-1"] == figures["top1"] == 1.0
    assert figures["source"] == str(val)
    assert figures["records_by_class"] == [2, 2, 2, 2]
    assert "top-1 100.00 top-5 100.00 (4x3), 8 records" in capsys.readouterr().out.splitlines()
    for name in ("evaluate-4x3.json", "records-4x3.csv", "confusion-4x3.png", "curves.png"):
        assert (tmp_path / "run" / name).stat().st_size > 100


def test_the_papers_views_are_no_difference() -> None:
    """The shipped training views are table 13's, but that a store has a fixed number of them."""
    views = {**view_recipe("k400", "k400").identity(), "count": 4}
    found = list(view_differences({"dataset": {"name": "k400"}, "views": views}))
    assert found == ["4 fixed views per record (paper: new views every epoch)"]
    small = {**view_recipe("k400", "k400", crop_size=64).identity(), "count": None}
    (difference,) = view_differences({"dataset": {"name": "k400"}, "views": small})
    assert difference == "scale_px [64, 64] (paper: [224, 224])"
