"""The commands of the design in their order, as a user types them: extract, train, evaluate, predict."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from tests.extract.datasets.made_ade20k import write_folder

ROOT = Path(__file__).parents[3]


def result(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, dict[str, Any], list[str]]:
    """Exit code, summary and the lines of stdout before it."""
    code = main([*line.split(), "--json"])
    *lines, summary = capsys.readouterr().out.splitlines()
    return code, json.loads(summary), lines


def test_extract_train_evaluate_predict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folder(tmp_path / "data", training=8, validation=3)
    monkeypatch.chdir(tmp_path)
    extract = f"extract --dataset ade20k --data {data} --model swinv2-nano --weights random:0 --stores f"
    train = "train-head --head bifpn1 --head-settings.width 16 --stores f"
    train += " --batch-size 4 --device cpu --val-every 0"
    code, first, _ = result(capsys, f"{extract} --split training --crop-size 64 --views 2")
    assert code == 0

    code, summary, _ = result(capsys, f"{train} --max-steps 4")
    assert code == 0
    assert summary["run"] == f"runs/{Path(first['store']).name}-bifpn1-1"
    code, summary, _ = result(capsys, f"evaluate --run {summary['run']}")
    assert code == 2
    assert "make extract DATASET=ade20k MODEL=swinv2-nano SPLIT=validation" in summary["error"]

    assert result(capsys, f"{extract} --split validation --short-side 64")[0] == 0
    code, more, _ = result(capsys, f"{extract} --split training --crop-size 64 --views 1 --seed 1")
    assert code == 0
    code, summary, _ = result(capsys, f"{train} --run runs/second --max-steps 4")
    assert code == 2
    assert first["store"] in summary["error"]
    both = f"{first['store']},{more['store']}"
    code, summary, _ = result(capsys, f"{train} --run runs/second --max-steps 4 --store {both}")
    assert code == 0
    code, summary, _ = result(capsys, "train-head --run runs/second --resume --max-steps 6")
    assert (code, summary["steps"]) == (0, 6)

    code, summary, lines = result(capsys, "evaluate --run runs/second")
    assert code == 0
    assert any(line.startswith(f"mIoU {100 * summary['miou']:.2f} (single)") for line in lines)
    code, live, _ = result(capsys, f"evaluate --run runs/second --live --data {data} --short-side 64")
    assert code == 0
    assert live["miou"] == pytest.approx(summary["miou"], abs=0.005)

    image = min((data / "images" / "validation").iterdir())
    code, summary, _ = result(capsys, f"predict --run runs/second --input {image} --out out")
    assert (code, len(summary["images"])) == (0, 1)
    assert {path.suffix for path in Path("out").iterdir()} == {".csv", ".json", ".png"}

    code, summary, _ = result(capsys, f"{train} --run runs/second --max-steps 4 --store {first['store']}")
    assert code == 2
    assert "already holds a run" in summary["error"]
    code, summary, _ = result(capsys, f"{train} --max-steps 4 --store {first['store']} --model swinv2-t")
    assert code == 3
    assert "swinv2-t" in summary["error"]
    (Path(first["store"]) / "MANIFEST.json").unlink()
    assert result(capsys, f"{train} --max-steps 4 --store {first['store']}")[0] == 4


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "extract DATASET=ade20k MODEL=swinv2-t LEVELS=p4,p5 VIEWS=2 ARGS=--shard-rows=8",
            "extract --dataset 'ade20k' --model 'swinv2-t' --levels 'p4,p5' --views '2' --shard-rows=8",
        ),
        ("train-head HEAD=bifpn5 RUN=runs/x", "train-head --head 'bifpn5' --run 'runs/x'"),
        ("verify STORE=features/s ARGS=--full", "verify --store 'features/s' --full"),
        ("evaluate RUN=runs/x", "evaluate --run 'runs/x'"),
        ("predict RUN=runs/x INPUT=a.jpg OUT=o", "predict --run 'runs/x' --input 'a.jpg' --out 'o'"),
        ("demo", "demo"),
    ],
)
def test_make_passes_its_variables_as_flags(line: str, command: str) -> None:
    # `make test` hands its level and ARGS down in the environment; this make is to know nothing of them.
    outside = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["make", "--dry-run", *line.split()], cwd=ROOT, env=outside, capture_output=True, text=True
    )
    assert done.returncode == 0
    last = " ".join(done.stdout.splitlines()[-1].split())
    assert last == f".venv/bin/python -m pipelines {command}"
