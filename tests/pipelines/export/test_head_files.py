"""Heads as files to share: read back as the run is, without paths of the machine, refused when damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipelines import load_run
from pipelines.__main__ import main
from pipelines.errors import UsageError
from pipelines.runs.checkpoint_files import DamagedCheckpoint
from pipelines.runs.head_file import read_head_file, record_of, tensors_sha256

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    out = tmp_path / "shared" / "head.safetensors"
    assert main(["export", "--run", str(run), "--format", "safetensors", "--out", str(out)]) == 0
    return out


def test_the_file_predicts_as_the_run(run: Path, exported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.safetensors"
    shutil.move(exported, moved)
    expected, found = load_run(run)([IMAGE])[0], load_run(moved)([IMAGE])[0]
    assert torch.equal(expected, found) and load_run(moved).class_names == load_run(run).class_names
    assert read_head_file(moved).step == 2
    with pytest.raises(UsageError, match="holds one checkpoint"):
        load_run(moved, checkpoint="best")


def test_the_verb_predict_takes_it(run: Path, exported: Path, tmp_path: Path) -> None:
    from PIL import Image  # late: the other tests need none

    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    words = ["predict", "--run", str(exported), "--input", str(tmp_path / "a.png"), "--device", "cpu"]
    assert main(words) == 0
    assert (exported.with_suffix("") / "predictions" / "a.labels.png").is_file()


def test_the_header_config_and_card_say_what_it_is(run: Path, exported: Path) -> None:
    with safe_open(exported, framework="np") as file:
        header = file.metadata()
    record, config = json.loads(header["record"]), json.loads((exported.parent / "config.json").read_text())
    whole = record_of(run)
    assert record_of(exported).identity == whole.identity and record["head"] == config["head"] == "linear"
    assert config["class_names"] == list(whole.class_names) and config["step"] == 2
    assert [level["name"] for level in config["levels"]] == list(whole.levels)
    assert config["weights_sha256"] == header["weights_sha256"] == tensors_sha256(load_file(exported))
    card = (exported.parent / "README.md").read_text()
    for words in (
        "# linear on swinv2-nano, ade20k",
        "| miou | 0.3123 |",
        "non-commercial",
        "load_run",
        "wall",
    ):
        assert words in card
    folder = str(run.parent)
    for text in (header["record"], json.dumps(config), card):
        assert folder not in text, "a path of this machine"


def test_what_is_damaged_or_another_file_is_refused(exported: Path, tmp_path: Path) -> None:
    tensors = load_file(exported)
    with safe_open(exported, framework="np") as file:
        header = file.metadata()

    def changed(name: str, weights: dict[str, torch.Tensor], **fields: str) -> Path:
        save_file(weights, tmp_path / name, {**header, **fields})
        return tmp_path / name

    first = next(iter(tensors))
    other = {**tensors, first: tensors[first] + 1}
    with pytest.raises(DamagedCheckpoint, match="SHA-256 of its weights"):
        load_run(changed("other.safetensors", other))
    bad = {**tensors, first: tensors[first] * float("nan")}
    with pytest.raises(DamagedCheckpoint, match="not finite"):
        load_run(changed("nan.safetensors", bad, weights_sha256=tensors_sha256(bad)))
    less = {name: value for name, value in tensors.items() if name != first}
    with pytest.raises(DamagedCheckpoint, match="does not fit the head"):
        load_run(changed("less.safetensors", less, weights_sha256=tensors_sha256(less)))
    with pytest.raises(UsageError, match="version 9"):
        load_run(changed("later.safetensors", tensors, version="9"))
    with pytest.raises(UsageError, match="not the record of a run"):
        load_run(changed("record.safetensors", tensors, record="{}"))
    save_file(tensors, tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match="no head of this program"):
        load_run(tmp_path / "plain.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(exported.read_bytes()[:-5])
    with pytest.raises(DamagedCheckpoint, match="damaged"):
        load_run(cut)
    with pytest.raises(UsageError, match="does not exist"):
        load_run(tmp_path / "absent.safetensors")


def test_refusals_leave_what_is_there(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--run", str(run), "--out"]
    assert main([*words, str(tmp_path / "head.pt")]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("mine")
    assert main([*words, str(tmp_path / "head.safetensors")]) == 2
    assert "something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert main([*words, str(tmp_path / "new" / "head.safetensors")]) == 0
    assert main([*words, str(tmp_path / "new" / "head.safetensors")]) == 0, "its own files are replaced"
