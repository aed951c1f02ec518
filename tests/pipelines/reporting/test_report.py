"""`report`: runs side by side, seeds together, the paper's rows beside them."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import statistics
from pathlib import Path

import pytest
import yaml

from heads import build_head, head_names
from pipelines.__main__ import main
from pipelines.config import TrainConfig
from pipelines.reporting import paper_results as paper_rows
from pipelines.runs import run_folder as runs
from pipelines.runs.costs import COSTS, RunCosts
from pipelines.runs.metrics_csv import read_metrics
from stores.pyramid import Level, PyramidSpec
from tests.pipelines.extracted import extract_store, write_coloured_data

PYRAMID = PyramidSpec(
    tuple(Level(name=f"p{s + 1}", stride_px=2 << s, channels=8 << s, stage=s) for s in (1, 2, 3, 4))
)
TASKS = {"ade20k": "segmentation", "coco": "detection", "k400": "video"}


def made_run(
    folder: Path,
    scores: dict[str, dict[str, float]],
    *,
    head: str = "fpn",
    seed: int = 0,
    digest: str = "0123456789abcdef",
    costs: bool = True,
    subset: str | None = None,
    model: str = "swinv2-b",
) -> Path:
    settings = {"width": 16}
    record = runs.RunRecord(
        head=head,
        head_settings=settings,
        pyramid=PYRAMID.to_json(),
        identity={
            "dataset": {"name": "ade20k", "task": "segmentation", "num_classes": 5,
                        "class_names": list("abcde"), "records": {"count": 100}, "subset": None},
            "views": {"seed": 0},
            "backbone": {"model": model, "weights_sha256": "0" * 64},
            "codec": {"name": "int8", "settings": {}},
        },
        stores=(runs.StoreReference(path="features/s", identity_digest=digest, manifest_digest="1"),),
        stores_folder="features",
        weights=None,
        data=None,
        verify="always",
        versions={},
    )  # fmt: skip
    folder.mkdir(parents=True)
    runs.write_run(
        folder, TrainConfig(head=head, head_settings=settings, seed=seed, subset=subset, max_steps=40), record
    )
    for number, (views, of) in enumerate(scores.items()):
        summary = {"views": views, "scores": of}
        (folder / f"evaluate{'-' * number}.json").write_text(json.dumps(summary))
    if costs:
        made = RunCosts(
            parameters=parameters(head), batch_size=16, timed_steps=30, timed_seconds=6.0 + 3 * seed,
            seconds=7200.0, peak_bytes=(2 + seed) * 10**9, peak_of="process", device="cpu",
        )  # fmt: skip
        (folder / COSTS).write_text(json.dumps(dataclasses.asdict(made)))
    return folder


def parameters(head: str) -> int:
    made = build_head(head, "segmentation", PYRAMID, 5, seed=0, width=16)
    return sum(p.numel() for p in made.parameters() if p.requires_grad)


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
    assert "mIoU 48.8 (51.3), ms+flip 50.0 (52.2): table 10, FPN, swinv2-b SUP-22K" in seeds
    other = next(line for line in lines if "ffffffff int8" in line)
    assert "40 40.00 70.00 - 200 ms 2.0 GB" in other, "another store is a row of its own"
    assert any(
        "tables 7 and 8, 16 samples a step: frozen, larger head 310 ms, 4.42 GB" in line for line in lines
    )

    with out.open() as file:
        rows = {(row["head"], row["store"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3
    row = rows["fpn (width=16)", "01234567"]
    assert float(row["mIoU (single)"]) == pytest.approx(mean)
    assert float(row["mIoU (single) deviation"]) == pytest.approx(deviation)
    assert (float(row["mIoU (single) least"]), float(row["mIoU (single) most"])) == pytest.approx((50, 57))
    assert (row["runs"], row["seeds"], int(row["parameters"])) == ("3", "0 1 2", parameters("fpn"))
    assert float(row["paper frozen mIoU (ms+flip)"]) == 50.0
    assert float(rows["bifpn1 (width=16)", "01234567"]["mIoU (ms+flip)"]) == pytest.approx(61)
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_what_a_run_lacks_is_left_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not evaluated, no checkpoint yet, half of the records, a backbone without a row of its own."""
    folder = made_run(tmp_path / "a", {}, costs=False, subset="50%", model="swinv2-s")
    code, text = report(capsys, str(folder), "--out", str(tmp_path / "r.csv"))
    assert code == 0 and "fpn (width=16), 50 %" in text and str(round(parameters("fpn") / 1e6, 2)) in text
    assert not (tmp_path / "r.png").exists(), "there is no score to draw"
    (folder / runs.METRICS).write_text("step,mIoU\n20,0.25\n40,0.3125\n")
    code, text = report(capsys, str(folder), "--json")
    summary = json.loads(text.splitlines()[-1])
    assert "single, while training" in text and summary["rows"][0]["mIoU (single, while training)"] == 31.25
    assert "paper" not in summary["rows"][0], "the paper's rows are of all records"


def test_a_row_of_another_backbone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_run(tmp_path / "a", {"single": {"mIoU": 0.5}}, model="swinv2-nano")
    assert "table 10, FPN, swinv2-b SUP-22K" in report(capsys, str(folder))[1]


def test_folders_without_a_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, str(tmp_path))[0] == 2
    code, text = report(capsys)
    assert code == 2 and "report runs/a runs/b" in text


def test_every_paper_row_names_an_existing_head() -> None:
    for row in paper_rows.paper_rows():
        assert row.head in head_names(TASKS[row.dataset]), row
        assert row.frozen and set(row.fine_tuned) <= set(row.frozen)
        assert all(
            20 < value < 90
            for of in (*row.frozen.values(), *row.fine_tuned.values())
            for value in of.values()
        )
    keys = [(row.table, row.dataset, row.head, row.model, row.share) for row in paper_rows.paper_rows()]
    assert len(set(keys)) == len(keys)


def test_paper_rows_are_found_by_share_and_backbone() -> None:
    assert paper_rows.paper_row("coco", "bifpn4", "swinv2-b", 0.1).frozen["single"]["box AP"] == 45.0
    assert paper_rows.paper_row("coco", "bifpn5", "swinv2-t").frozen["single"]["box AP"] == 49.6
    assert paper_rows.paper_row("ade20k", "m2f-pd6-td9", "swinv2-g").frozen["single"]["mIoU"] == 57.6
    assert paper_rows.paper_row("k400", "linear", "swinv2-b").fine_tuned["4x3"]["top-1"] == 79.7
    assert paper_rows.paper_row("ade20k", "linear", "swinv2-b") is None
    assert paper_rows.paper_cost("k400", "swinv2-g").frozen == {"gb": 30.54, "seconds": 1.14}


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
