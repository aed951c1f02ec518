"""A run that an earlier release made (816d41c): resumed and evaluated as it stands, with its stores."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from pipelines.__main__ import main
from stores import verify_store

FOLDER = Path(__file__).parent / "golden" / "run-linear"
TRAINING, VALIDATION = "k400-train-swinv2-nano-int8-fc5df7cd", "k400-val-swinv2-nano-int8-97ce4afe"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder where a test may write; it is not where it was made."""
    return Path(shutil.copytree(FOLDER, tmp_path / "elsewhere"))


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_its_stores_are_whole() -> None:
    for name in (TRAINING, VALIDATION):
        assert verify_store(FOLDER / "stores" / name, full=True).problems == ()


def test_it_resumes_for_one_step(copy: Path) -> None:
    before = rows_of(copy / "run")
    words = ["--run", str(copy / "run"), "--store", str(copy / "stores" / TRAINING)]
    assert main(["train-head", "--resume", "--max-steps", "3", *words]) == 0
    after = rows_of(copy / "run")
    assert after[: len(before)] == before
    losses = {row["step"]: float(row["loss"]) for row in after if row["loss"]}
    assert set(losses) == {"2", "3"}
    assert 0 < losses["3"] < 2 * losses["2"]
    assert (copy / "run" / "checkpoints" / "step-0000003.ckpt").is_file()


def test_it_evaluates_to_the_scores_it_had(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = json.loads((FOLDER / "run" / "evaluate.json").read_text())["scores"]
    words = ["--run", str(copy / "run"), "--store", str(copy / "stores" / VALIDATION)]
    assert main(["evaluate", *words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["scores"] == scores == {"top-1": 0.5, "top-5": 1.0}
