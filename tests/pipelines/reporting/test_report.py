"""`report`: runs side by side, seeds together, the paper's rows beside them."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest
import yaml

from pipelines.__main__ import main
from pipelines.runs import run_folder as runs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.trained_head import new_head
from tests.pipelines.extracted import extract_store, write_coloured_data
from tests.pipelines.reporting.made_runs import made_run, parameters


def report(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["report", *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_seeds_are_one_row_with_mean_and_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = [0.50, 0.52, 0.57]
    for seed, share in enumerate(shares):
        made_run(
            tmp_path / "group" / f"seed{seed}", {"single": {"mIoU": share, "pixel_accuracy": 0.8}}, seed=seed
        )
    made_run(tmp_path / "bifpn", {"single": {"mIoU": 0.6, "pixel_accuracy": 0.9}, "ms+flip": {"mIoU": 0.61}},
             head="bifpn1")  # fmt: skip
    made_run(tmp_path / "other store", {"single": {"mIoU": 0.4, "pixel_accuracy": 0.7}}, digest="f" * 64)
    out = tmp_path / "tables" / "report.csv"
    code, text = report(
        capsys,
        *map(str, (tmp_path / "group", tmp_path / "bifpn", tmp_path / "other store")),
        "--out",
        str(out),
    )
    assert code == 0, text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    mean, deviation = 100 * statistics.mean(shares), 100 * statistics.stdev(shares)
    seeds = next(line for line in lines if " x3 " in line)
    assert f"{mean:.2f} ± {deviation:.2f}" in seeds and "01234567 int8" in seeds
    assert "300 ms 4.0 GB 2.00" in seeds  # mean time of a step, largest peak, mean hours
    assert (
        "mIoU 48.8 (fine-tuned 51.3), ms+flip 50.0 (fine-tuned 52.2): table 10, FPN, swinv2-b SUP-22K"
        in seeds
    )
    other = next(line for line in lines if "ffffffff int8" in line)
    assert "40 40.00 70.00 - 200 ms 2.0 GB" in other, "another store is a row of its own"
    assert any(
        "tables 7 and 8, 16 samples a step: frozen, larger head 310 ms, 4.42 GB" in line for line in lines
    )

    with out.open() as file:
        rows = {(row["head"], row["store"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3
    row = rows["fpn", "01234567"]
    assert float(row["mIoU (single)"]) == pytest.approx(mean)
    assert float(row["mIoU (single) deviation"]) == pytest.approx(deviation)
    assert (float(row["mIoU (single) least"]), float(row["mIoU (single) most"])) == pytest.approx((50, 57))
    assert (row["runs"], row["seeds"], int(row["parameters"])) == ("3", "0 1 2", parameters("fpn"))
    assert float(row["paper frozen mIoU (ms+flip)"]) == 50.0
    assert float(rows["bifpn1", "01234567"]["mIoU (ms+flip)"]) == pytest.approx(61)
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_what_a_run_lacks_is_left_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not evaluated, no checkpoint yet, half of the records, a backbone without a row of its own."""
    folder = made_run(tmp_path / "a", {}, costs=False, steps=0, subset="50%", model="swinv2-s")
    parameter_count = sum(p.numel() for p in new_head(runs.read_run(folder)).parameters() if p.requires_grad)
    code, text = report(capsys, str(folder), "--out", str(tmp_path / "r.csv"))
    assert code == 0 and "fpn, 50 %" in text and f"{parameter_count / 1e6:.2f} M" in text
    assert "0 of 40, not finished" in text
    assert not (tmp_path / "r.png").exists(), "there is no score to draw"
    (folder / runs.METRICS).write_text("step,mIoU\n20,0.25\n40,0.3125\n")
    code, text = report(capsys, str(folder), "--json")
    row = json.loads(text.splitlines()[-1])["rows"][0]
    assert "single, while training" in text and row["mIoU (single, while training)"] == 31.25
    assert row["finished"] is True
    assert "paper" not in row and row["paper missing"] == "no backbone of the paper: swinv2-s"


def test_a_data_set_of_no_paper_has_no_column_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_run(tmp_path / "a", {"single": {"mIoU": 0.5}})
    assert "paper, frozen" in report(capsys, str(folder))[1]
    monkeypatch.setattr("pipelines.reporting.report_table.paper_dataset", lambda name: None)
    text = report(capsys, str(folder))[1]
    assert "50.00" in text and "paper, frozen" not in text and "table 10" not in text


def test_runs_on_real_and_on_random_weights_are_distinguished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"single": {"mIoU": 0.5, "pixel_accuracy": 0.8}}
    made_run(tmp_path / "real", scores, digest="a" * 64)
    made_run(tmp_path / "noise", scores, digest="b" * 64, weights="random:0", weights_sha256="1" * 64)
    made_run(tmp_path / "mim", scores, digest="c" * 64, weights="/w/simmim_swinv2_base.pth",
             weights_sha256="2" * 64)  # fmt: skip
    code, text = report(capsys, str(tmp_path), "--json")
    real, noise, mim = (next(line for line in text.splitlines() if f"/{name}" in line and "fpn" in line)
                        for name in ("real", "noise", "mim"))  # fmt: skip
    assert code == 0
    assert "SUP-22K (swinv2_base_window12_192.ms_in22k)" in real and "mIoU 48.8" in real
    assert "random:0" in noise and "none: no pretraining of the paper: weights random:0" in noise
    assert "SimMIM-1K (simmim_swinv2_base.pth)" in mim and "mIoU 26.0" in mim and "48.8" not in mim
    rows = {Path(row["folders"]).name: row for row in json.loads(text.splitlines()[-1])["rows"]}
    assert {name: (row["weights"], row["pretraining"]) for name, row in rows.items()} == {
        "real": ("swinv2_base_window12_192.ms_in22k", "SUP-22K"),
        "noise": ("random:0", None),
        "mim": ("simmim_swinv2_base.pth", "SimMIM-1K"),
    }
    assert rows["mim"]["paper frozen mIoU (single)"] == 26.0


def test_pretraining_is_given_for_unknown_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"single": {"mIoU": 0.5}}
    made_run(tmp_path / "a", scores, weights="/w/epoch800.pth", weights_sha256="ab" * 32)
    made_run(tmp_path / "b", scores, weights=None, weights_sha256="cd" * 32, digest="f" * 64)
    made_run(tmp_path / "c", scores, weights="random:1", weights_sha256="ef" * 32, digest="e" * 64)

    def shown(*words: str) -> dict[str, float | str]:
        code, text = report(capsys, str(tmp_path), "--json", *words)
        assert code == 0, text
        rows = json.loads(text.splitlines()[-1])["rows"]
        return {Path(row["folders"]).name: row.get("paper frozen mIoU (single)", row.get("paper missing"))
                for row in rows}  # fmt: skip

    unknown = shown()
    assert unknown["a"] == "pretraining of weights epoch800.pth unknown; pass --pretraining abababab=NAME"
    assert unknown["b"] == "pretraining of weights cdcdcdcd unknown; pass --pretraining cdcdcdcd=NAME"
    random = "no pretraining of the paper: weights random:1"
    assert shown("--pretraining", "simmim-1k") == {"a": 26.0, "b": 26.0, "c": random}
    by_key = shown("--pretraining", f"abababab=EsViT-1K,{tmp_path / 'b'}=SUP-1K")
    assert by_key == {"a": 41.8, "b": 43.9, "c": random}
    code, text = report(capsys, str(tmp_path), "--pretraining", "SimMIM")
    assert code == 2 and "SUP-1K, SUP-22K, EsViT-1K, SimMIM-1K, iCAR-Laion" in text


def test_unfinished_runs_are_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mean over seeds holds finished runs only."""
    for seed, steps in ((0, 40), (1, 40), (2, 20)):
        made_run(tmp_path / f"seed{seed}", {"single": {"mIoU": 0.5 - 0.1 * seed}}, seed=seed, steps=steps)
    (tmp_path / "seed0" / "evaluate.json").write_text(
        json.dumps({"views": "single", "scores": {"mIoU": 0.5}, "step": 30})
    )
    code, text = report(capsys, str(tmp_path), "--json")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    finished = next(line for line in lines if " x2 " in line)
    assert code == 0 and "45.00 ± 7.07" in finished and "(seed0, seed1)" in finished
    assert any("20 of 40, not finished 30.00" in line and "seed2" in line for line in lines)
    assert any("seed0 was evaluated after step 30 of 40" in line for line in lines)
    rows = json.loads(text.splitlines()[-1])["rows"]
    assert sorted((row["finished"], row["steps_done"], row["runs"]) for row in rows) == [
        (False, 20, 1),
        (True, 40, 2),
    ]


def test_settings_and_notes_stand_below_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"width": 16, "input_norm": "ln_no_affine"}
    made_run(tmp_path / "a", {"single": {"mIoU": 0.5}}, settings=settings, records=6)
    made_run(tmp_path / "b", {"single": {"mIoU": 0.5}}, settings=settings, records=6, digest="f" * 64)
    _, text = report(capsys, str(tmp_path))
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == ["fpn [1]"] * 2
    assert all(line.endswith("[a] [b] [c]") for line in lines[2:4])
    assert lines[4:8] == [
        "[1] width=16, input_norm=ln_no_affine",
        "[a] paper: 224 px, window 7 weights, not public; ours: 192 px, window 12",
        "[b] head settings of our own: width=16, input_norm=ln_no_affine",
        "[c] of 6 records (paper: 20,210)",
    ]


def test_folders_without_a_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, str(tmp_path))[0] == 2
    code, text = report(capsys)
    assert code == 2 and "report runs/a runs/b" in text


@pytest.mark.ci
def test_seeds_of_a_share_of_the_records_are_trained_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an int4 store to the table: extract, verify, train with three seeds, evaluate, report."""
    data, stores, group = (
        write_coloured_data(tmp_path, training=8, validation=2),
        tmp_path / "f",
        tmp_path / "g",
    )
    path = extract_store(data, stores, "int4", "training", 2)
    extract_store(data, stores, "int4", "validation")
    assert main(["verify", "--store", str(path), "--full"]) == 0
    line = (
        f"train-head --head linear --stores {stores} --device cpu --batch-size 2 --max-steps 2 --run {group}"
    )
    assert main([*line.split(), "--seeds", "3", "--data-fraction", "0.5"]) == 0
    folders = [group / f"seed{seed}" for seed in range(3)]
    losses = [losses_of(folder) for folder in folders]
    assert len(set(losses)) == 3, "each seed has weights and an order of its own"
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["subset"], config["data_fraction"], config["seeds"]) == ("50%", None, 1)
        assert main(["evaluate", "--run", str(folder)]) == 0
    shutil.rmtree(folders[2])
    assert main(["train-head", "--resume", "--run", str(group)]) == 0
    assert losses_of(folders[2]) == losses[2], "a resumed group begins the runs it lacks"
    capsys.readouterr()
    code, text = report(capsys, str(group), "--json")
    (row,) = json.loads(text.splitlines()[-1])["rows"]
    assert code == 0 and (row["runs"], row["share"], row["codec"]) == (3, 0.5, "int4")
    assert row["steps"] == 2 and row["step_seconds"] > 0 and row["hours"] > 0 and row["peak_bytes"] > 10**8
    assert row["mIoU (single) least"] <= row["mIoU (single)"] <= row["mIoU (single) most"]
    assert " ± " in text and "linear, 50 % x3" in text


def losses_of(run: Path) -> tuple[str, ...]:
    return tuple(row["loss"] for row in read_metrics(run / runs.METRICS) if "loss" in row)


@pytest.mark.parametrize(
    ("words", "message"),
    [("--data-fraction 0.5 --subset 10%", "give only one of them"), ("--data-fraction 2", "at most 1"),
     ("--seeds 0", "--seeds 0: expected 1 or more")],
)  # fmt: skip
def test_invalid_shares_and_seeds_are_refused(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-head", "--head", "linear", "--dataset", "ade20k", *words.split()]) == 2
    assert message in capsys.readouterr().err
