"""What a run says of its recipe: which, why, and what its length means; a paper only where one is meant."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from pipelines.catalog.known_weights import remember_weights
from pipelines.errors import DONE
from pipelines.reporting.paper_results import view_differences
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines import made_stores

_identity = made_stores._identity


def log_of(
    root: Path, caplog: pytest.LogCaptureFixture, *flags: str, dataset: str = "ade20k", head: str = "linear"
) -> str:
    def of_dataset(*words: Any) -> dict[str, Any]:
        found = _identity(*words)
        return {**found, "dataset": {**found["dataset"], "name": dataset}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_stores, "_identity", of_dataset)
        made_stores.make_store(root / "features", records=4)
    words = f"train-head --head {head} --stores {root / 'features'} --run {root / 'run'} --device cpu"
    with caplog.at_level(logging.INFO):
        assert (
            main([*words.split(), "--threads", "1", "--batch-size", "2", "--max-steps", "2", *flags]) == DONE
        )
    return "\n".join(record.message for record in caplog.records if "run_report" in record.name)


def test_a_new_data_set_has_no_recipe_and_no_paper(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = log_of(tmp_path, caplog, dataset="flowers")
    assert (
        "no recipe is shipped for head linear on data set flowers; general settings: 2 steps of 2 rows, "
        "1 epochs of 4 records, lr 0.002; change them with --recipe, --epochs or --lr"
    ) in text
    assert "paper" not in text


def test_views_are_compared_with_a_paper_only_where_one_is() -> None:
    views = {"recipe": "ade20k", "crop_px": 128, "count": None}
    papers = {"name": "ade20k", "num_classes": 150, "records": {"count": 20210}}
    assert list(view_differences({"dataset": papers, "views": views}, "fpn")) == ["crop_px 128 (paper: 512)"]
    made = {**papers, "records": {"count": 200}}
    assert not list(view_differences({"dataset": made, "views": views}, "fpn")), "made data in its layout"
    assert not list(view_differences({"dataset": papers, "views": views}, "my-head")), "no paper prints it"


def test_the_default_recipe_is_named_with_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The made store has ADE20K's layout and five classes of its own."""
    text = log_of(tmp_path, caplog)
    assert "recipe ade20k-linear, the default for head linear on ade20k: 2 steps of 2 rows, 1 epochs" in text
    assert (
        "made for the official ade20k, here with 5 classes and 4 records: --epochs sets another length"
        in text
    )
    assert "paper" not in text


def test_a_recipe_that_was_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = log_of(tmp_path, caplog, "--recipe", "demo-linear")
    assert "recipe demo-linear, as given: 2 steps" in text


def test_a_recipe_that_was_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside a store of another data set, which one is meant is known only after the settings were read."""
    log_of(tmp_path, caplog, dataset="flowers")
    caplog.clear()
    made_stores.make_store(tmp_path / "features", records=4, weights="cd" * 32)
    remember_weights(tmp_path / "features", "cd" * 32, "random:7")
    words = (
        f"train-head --head linear --stores {tmp_path / 'features'} --run {tmp_path / 'second'} --device cpu"
    )
    words += " --threads 1 --batch-size 2 --max-steps 2 --weights random:7"
    with caplog.at_level(logging.INFO):
        assert main(words.split()) == DONE
    assert (
        "recipe ade20k-linear was not applied: pass --dataset ade20k or --recipe ade20k-linear" in caplog.text
    )
