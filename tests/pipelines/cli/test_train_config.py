"""Invalid counts and files of train-head are refused before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.cli.arguments import parse
from pipelines.cli.head_variants import parse_command
from pipelines.config import ManyHeadsConfig, TrainConfig
from pipelines.config.fields import one_report_row_settings, one_stream_settings
from pipelines.errors import USAGE, UsageError
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
def test_counts_below_their_minimum_are_refused(
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


def test_invalid_files_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("optimizer: 3\nhead: linear,fpn\n")
    assert main(["train-head", "--config", str(tmp_path / "c.yaml")]) == USAGE
    assert "optimizer" in capsys.readouterr().err
    for text in ("{}", "[]", '{"heads": ["linear"', '{"heads": 3, "stopped": {}}'):
        (tmp_path / "heads.json").write_text(text)
        assert main(["train-head", "--resume", "--run", str(tmp_path)]) == USAGE
        assert f"{tmp_path}/heads.json is not the record of several runs" in capsys.readouterr().err


def test_marks_of_the_fields_decide_what_runs_must_agree_on() -> None:
    assert set(one_stream_settings(TrainConfig)) == {
        *("dataset", "model", "split", "weights", "stores", "subset", "batch_size", "seed", "seeds"),
        *("shuffle_window", "online", "data", "pixels", "crop_size", "model_args", "window_rule"),
        *("mean", "std", "interpolation", "pretrained_tag", "pos_resample", "stuff"),
        *("verify", "threads", "device", "devices", "allow_partial"),
    }
    assert set(one_report_row_settings(TrainConfig)) == {
        *("head", "head_settings", "levels", "subset", "max_steps", "epochs", "repeat", "batch_size"),
        *("optimizer", "schedule", "precision"),
    }


def test_heads_of_a_file_that_are_wrong_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "heads.yaml"
    for text, message in (
        ("heads: [linear]", "heads.yaml: heads: expected `name: {setting: value}` for each head"),
        ("heads: {a: {head: fpn, lrr: 1}}", "heads.yaml: lrr: unknown setting; did you mean optimizer.lr?"),
        ("heads: {a/b: {head: fpn}}", "head name 'a/b': it names a folder"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            parse_command(TrainConfig, ["--config", str(path)])
        assert message in str(caught.value)


def test_several_heads_take_their_run_from_a_file_and_from_the_last_flag(tmp_path: Path) -> None:
    path = tmp_path / "heads.yaml"
    path.write_text("head: [fpn, linear]\nrun: some/folder\n")
    words = ["--config", str(path), "--dataset", "none"]
    several = parse_command(TrainConfig, words)
    assert isinstance(several, ManyHeadsConfig) and several.run == "some/folder"
    assert {name: head.run for name, head in several.heads.items()} == {"fpn": None, "linear": None}
    other = parse_command(TrainConfig, [*words, "--run", "a", "--run=b"])
    assert isinstance(other, ManyHeadsConfig) and other.run == "b"
