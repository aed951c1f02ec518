"""The window rule from the command line to stores, runs and what reads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.backbones.loading import backbone_card, load_backbone
from extract.backbones.weights import FORMER_BUNDLED
from extract.datasets import dataset_module, dataset_names, view_recipe
from pipelines.__main__ import main
from pipelines.catalog.choose_backbone import chosen_card
from pipelines.catalog.choose_store import find_test_store
from pipelines.config import TrainConfig
from pipelines.errors import UsageError
from pipelines.feed.online_data import OnlineData
from pipelines.live.backbone import load_run_backbone, load_same_backbone
from pipelines.runs import run_folder as runs
from pipelines.runs.same_source import check_same_source
from pipelines.verbs import train_head
from stores import open_store
from stores.errors import IdentityError
from tests.extract.backbones.small import images
from tests.extract.datasets.made_k400 import write_folder
from tests.pipelines.extraction.verb import result
from tests.unfinished import forget

GOLDEN = Path(__file__).parents[2] / "golden" / "run-linear"
GOLDEN_TEST_STORE = GOLDEN / "stores" / "k400-val-swinv2-nano-int8-97ce4afe"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), train=2, val=1, frames=20)


def words_of(clips: Path, stores: Path, *more: str) -> list[str]:
    """Of `extract`: clips of 64 px, drawn weights."""
    words = ["--dataset", "k400", "--data", str(clips), "--model", "swinv2-nano", "--weights", "random:0"]
    return [*words, "--stores", str(stores), "--crop-size", "64", "--device", "cpu", "--workers", "1", *more]


def test_every_data_set_names_its_rule() -> None:
    found = {name: dataset_module(name).DEFAULT_WINDOW_RULE for name in ("ade20k", "coco", "k400")}
    assert found == {"ade20k": "partition", "coco": "partition", "k400": "cover"}
    assert all(hasattr(dataset_module(name), "DEFAULT_WINDOW_RULE") for name in dataset_names())


@pytest.mark.parametrize(
    ("dataset", "px", "model", "args", "rule", "windows"),
    [
        ("k400", 224, "swinv2-b", {}, None, ("cover", 7, 7)),
        ("k400", 256, "swinv2-b", {}, None, ("cover", 12, 6)),
        ("k400", 224, "swinv2-b", {"window_size": 14}, None, ("cover", 14, 14)),
        ("k400", 224, "swinv2-b", {}, "partition", ("partition", 12, 6)),
        ("ade20k", 512, "swinv2-b", {}, None, ("partition", 12, 6)),
        ("ade20k", 512, "swinv2-b", {}, "cover", ("cover", 12, 6)),
    ],
)
def test_defaults_of_a_data_set(
    dataset: str, px: int, model: str, args: dict[str, Any], rule: str | None, windows: tuple[str, int, int]
) -> None:
    recipe = view_recipe(dataset, dataset, crop_size=px)
    card = chosen_card(dataset, recipe, model, args, None, rule)
    assert (card.window_rule, card.windows[0][0], card.windows[3][0]) == windows


def test_backbones_without_windows_have_no_rule() -> None:
    card = chosen_card("k400", view_recipe("k400", "k400"), "timm:resnet18", {}, None, None)
    assert card == backbone_card("timm:resnet18")
    assert "window_rule" not in card.identity(weights_sha256="", precision="fp32")


def test_the_flag_decides_the_features_and_the_identity(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, identities = {}, {}
    for flag in ((), ("--window-rule", "cover"), ("--window-rule", "partition")):
        _, summary, out, _ = result(capsys, "extract", *words_of(clips, tmp_path / "features", *flag))
        rule = flag[-1] if flag else ""
        assert f"rule {rule or 'cover'}; padding tokens by stage" in out
        with open_store(summary["store"]) as store:
            features[rule], identities[rule] = store.read_features([0])["p5n"], store.identity["backbone"]
        assert main(["info", "--store", summary["store"]]) == 0
        assert f"8x8, 8x8, 8x8, 4x4, rule {rule or 'cover'}" in capsys.readouterr().out
    assert identities[""] == identities["cover"] == {**identities["partition"], "window_rule": "cover"}
    assert np.array_equal(features[""], features["cover"])
    assert np.abs(features["cover"] - features["partition"]).max() > 0.1


def test_an_unfinished_store_of_an_earlier_release_is_pointed_out(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The same command begins another store now; the old one needs a flag to be resumed."""
    old = "--window-rule", "partition"
    _, begun, _, _ = result(capsys, "extract", *words_of(clips, tmp_path / "features", *old))
    result(capsys, "extract", *words_of(clips, tmp_path / "features"))
    assert "partition resumes it" not in caplog.text, "it is complete"
    forget(Path(begun["store"]))
    shutil.rmtree(Path(begun["store"]) / "receipts")
    for store in (tmp_path / "features").iterdir():
        if store.is_dir() and str(store) != begun["store"]:
            shutil.rmtree(store)
    _, other, _, _ = result(capsys, "extract", *words_of(clips, tmp_path / "features"))
    assert other["store"] != begun["store"]
    assert f"{begun['store']} was begun under the window rule partition" in caplog.text
    _, again, _, _ = result(capsys, "extract", *words_of(clips, tmp_path / "features", *old))
    assert (again["store"], again["rows_written"]) == (begun["store"], begun["rows_written"])


def test_plan_names_the_window_without_padding(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "k400", "--data", str(clips), "--device", "cpu", "--workers", "1"]
    words += ["--model", "swinv2-nano", "--model-args.window_size", "12", "--weights", "random:0"]
    _, summary, out, _ = result(capsys, "plan", *words)
    line = "12x12, 12x12, 12x12, 12x12, rule cover; padding tokens by stage 13, 40, 66, 0 %"
    assert f"{line}; none with --model-args.window_size 7" in out
    assert summary["padding_tokens"] == [0.1289, 0.3951, 0.6597, 0.0]
    assert summary["window_without_padding"] == 7


def test_a_store_without_the_field_is_partitioned() -> None:
    """Of an earlier release: its own features again, from a live backbone by its identity."""
    record = runs.read_run(GOLDEN / "run")
    assert "window_rule" not in record.identity["backbone"]
    assert load_run_backbone(record, None, CPU).card.window_rule == "partition"
    with open_store(GOLDEN_TEST_STORE) as store:
        check_same_source(record.identity, store.identity, "the golden store")
        newer = {**store.identity, "backbone": {**store.identity["backbone"], "window_rule": "cover"}}
    assert load_same_backbone(newer["backbone"], ("p5n",), "timm", CPU).card.window_rule == "cover"
    with pytest.raises(IdentityError, match=r"backbone\.window_rule.*partition.*cover"):
        check_same_source(record.identity, newer, "another store")


def test_a_test_store_of_the_runs_rule_is_taken_or_the_line_that_makes_it_said(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores, old = tmp_path / "features", ("--window-rule", "partition")
    result(capsys, "extract", *words_of(clips, stores, *old))
    run = ["--head", "linear", "--stores", str(stores), "--run", str(tmp_path / "run"), "--max-steps", "1"]
    assert main(["train-head", *run, "--batch-size", "2", "--device", "cpu"]) == 0
    record = runs.read_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r'SPLIT=val .*ARGS="--crop-size 64 --window-rule partition"'):
        find_test_store(record, stores)
    made = {}
    for more in ((), old):
        _, summary, _, _ = result(capsys, "extract", *words_of(clips, stores, "--split", "val", *more))
        made[more] = Path(summary["store"])
    assert find_test_store(record, stores) == made[old]


def test_an_online_run_keeps_its_rule_when_it_is_resumed(clips: Path, tmp_path: Path) -> None:
    """Also one of an earlier release, whose identity names none."""
    words: dict[str, Any] = {
        "head": "linear",
        "online": True,
        "dataset": "k400",
        "model": "swinv2-nano",
        "weights": "random:0",
        "data": str(clips),
        "batch_size": 2,
        "device": "cpu",
    }
    for rule in ("partition", "cover"):
        run = str(tmp_path / rule)
        begun = TrainConfig(**words, crop_size=64, run=run, max_steps=1, window_rule=rule)  # type: ignore[arg-type]
        train_head.run(begun)
        resumed = TrainConfig(**words, crop_size=64, run=run, max_steps=2, resume=True)
        assert train_head.run(resumed)["steps"] == 2
        named = runs.read_run(tmp_path / rule).identity["backbone"].get("window_rule")
        assert named == (None if rule == "partition" else "cover")
    whole = TrainConfig(**words, crop_size=224, run=str(tmp_path / "new"), max_steps=1)
    data = OnlineData.open(whole, CPU)
    assert data.identity["backbone"]["windows"] == [[7, 7]] * 4
    assert data.identity["backbone"]["window_rule"] == "cover"
    data.close()


def test_predictions_of_a_run_are_of_its_rule() -> None:
    """`load_run` and `predict` build their backbone from the run's record."""
    record = runs.read_run(GOLDEN / "run")
    batch = images(1, (64, 64))
    found = load_run_backbone(record, None, CPU)(*batch)["p5n"]
    weights = str(FORMER_BUNDLED[record.weights_sha256])
    for rule, same in (("partition", True), ("cover", False)):
        card = backbone_card("swinv2-nano", levels=("p5n",), window_rule=rule)
        assert torch.equal(load_backbone(card, weights)(*batch)["p5n"], found) is same
