"""Numbers of train-head that cannot be, and files that are none, told before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.cli.arguments import parse
from pipelines.config import TrainConfig
from pipelines.errors import USAGE
from stores.subsets import subset_keys

WRONG = {
    "--max-steps 0": "max_steps 0: expected 1 or more",
    "--max-steps -3": "max_steps -3: expected 1 or more",
    "--batch-size 0": "batch_size 0: expected 1 or more",
    "--repeat 0": "repeat 0: expected 1 or more",
    "--epochs -2": "epochs -2: expected more than 0",
    "--epochs 0": "epochs 0: expected more than 0",
    "--shuffle-window 0": "shuffle_window 0: expected 1 or more",
    "--checkpoint-every 0": "checkpoint_every 0: expected 1 or more",
    "--val-every -1": "val_every -1: expected 0 or more",
    "--keep-checkpoints -1": "keep_checkpoints -1: expected 0 or more",
    "--data-fraction 0": "data_fraction 0.0: expected more than 0 and at most 1",
}


@pytest.mark.parametrize("heads", ["linear", "linear,fpn"])
@pytest.mark.parametrize("flags", WRONG)
def test_counts_that_cannot_be_are_refused(
    flags: str, heads: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train-head --head {heads} --stores {tmp_path} --run {tmp_path}/run {flags}"
    assert main(words.split()) == USAGE
    assert capsys.readouterr().err == f"train-head: {WRONG[flags]}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fraction", ["1", "0.1", "0.07", "1e-5", "0.123456"])
def test_every_fraction_is_a_subset(fraction: str) -> None:
    config = parse(TrainConfig, ["--head", "linear", "--data-fraction", fraction])
    assert config.subset is not None and config.data_fraction is None
    keys = [str(number) for number in range(1000)]
    assert len(subset_keys(keys, config.subset)) == max(1, -(-int(float(fraction) * 10**8) // 10**5))


def test_files_that_are_none_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("optimizer: 3\nhead: linear,fpn\n")
    assert main(["train-head", "--config", str(tmp_path / "c.yaml")]) == USAGE
    assert "optimizer" in capsys.readouterr().err
    for text in ("{}", "[]", '{"heads": ["linear"', '{"heads": 3, "stopped": {}}'):
        (tmp_path / "heads.json").write_text(text)
        assert main(["train-head", "--resume", "--run", str(tmp_path)]) == USAGE
        assert f"{tmp_path}/heads.json is not the record of several runs" in capsys.readouterr().err
