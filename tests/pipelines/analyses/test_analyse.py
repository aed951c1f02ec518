"""`analyse` on made stores and the nano backbone: files, numbers, refusals."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.__main__ import main
from pipelines.analyses.sample_rows import cut_to, sample_rows
from pipelines.analyses.similarity.cka import cka_matrix
from pipelines.analyses.similarity.held_features import GramCollector
from pipelines.live.backbone import live_features, load_same_backbone
from pipelines.live.recompute_levels import open_pixels
from stores import open_store
from stores.codecs import codec
from stores.codecs.contract import channel_errors
from stores.subsets import key_order
from tests.pipelines.extracted import extract_store, write_coloured_data
from tests.pipelines.made_stores import make_store


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured_data(tmp_path_factory.mktemp("data"), training=8, validation=8)


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_store(data, tmp_path_factory.mktemp("stores"), "int8", "training", views=1)


def analyse(out: Path, *words: object) -> dict[str, Any]:
    """The JSON file; CSV and PNG are read too."""
    assert main(["analyse", *map(str, words), "--out", str(out)]) == 0
    kind = str(words[words.index("--kind") + 1])
    assert list(csv.DictReader((out / f"{kind}.csv").open()))
    with Image.open(out / f"{kind}.png") as picture:
        assert min(picture.size) > 200
    found: dict[str, Any] = json.loads((out / f"{kind}.json").read_text())
    return found


def test_levels_of_a_store(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = analyse(tmp_path, "--kind", "cka", "--store", store)
    (matrix,) = found["matrices"]
    values = np.array(matrix["cka"])
    assert matrix["rows"] == ["p2", "p3", "p4", "p5"] == matrix["columns"]
    assert np.diag(values) == pytest.approx(np.ones(4)) and values == pytest.approx(values.T)
    assert found["rows"] == 8 and found["stores"][0]["codec"] == "int8" and found["estimator"] == "unbiased"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("cost: 8 rows,") and "multiply-adds" in printed[0]
    assert printed[-1].startswith("CKA of 8 rows, unbiased: most alike")


def test_a_store_and_its_float16_twin_are_alike(store: Path, data: Path, tmp_path: Path) -> None:
    twin = extract_store(data, tmp_path / "f", "float16", "training", views=1)
    found = analyse(tmp_path / "out", "--kind", "cka", "--store", f"{store},{twin}")
    assert np.diag(found["matrices"][0]["cka"]).min() > 0.999


def test_other_views_or_records_are_no_pair(
    store: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = extract_store(data, tmp_path / "f", "int8", "training", views=1, seed=7)
    words = ("analyse", "--kind", "cka", "--out", str(tmp_path / "o"), "--store")
    assert main([*words, f"{store},{other}"]) == 3
    assert "view parameters of" in capsys.readouterr().err
    made = make_store(tmp_path / "m")
    assert main([*words, f"{made},{other}"]) == 3


def test_rows_are_the_first_of_the_key_order(tmp_path: Path) -> None:
    path = make_store(tmp_path, records=12, views=2)
    with open_store(path) as opened:
        sample = sample_rows(opened, 14)
        keys = [opened.keys[row] for row in sample.rows]
        views = [int(opened.views[row]) for row in sample.rows]
    order = key_order(set(keys))
    assert keys == [*order, *order[:2]] and views == [0] * 12 + [1] * 2


def live_maps(store: Path, data: Path) -> dict[str, list[np.ndarray]]:
    """Level -> maps (C, y, x) of the rows of a sample, of the backbone itself."""
    with open_store(store) as opened:
        names, cpu = opened.levels, torch.device("cpu")
        backbone = load_same_backbone(opened.identity["backbone"], names, "random:0", cpu)
        source, found = open_pixels(opened, "source", str(data), 1), {name: [] for name in names}
        for row in sample_rows(opened, 8).rows:
            hw = (int(opened.valid_hw[row][0]), int(opened.valid_hw[row][1]))
            for level, x in live_features(backbone, source.read(opened, [row]), [hw]).items():
                found[level].append(x[0].numpy())
        source.close()
    return found


def test_int8_changes_cka_by_less_than_a_five_hundredth(store: Path, data: Path, tmp_path: Path) -> None:
    stored = np.array(analyse(tmp_path, "--kind", "cka", "--store", store)["matrices"][0]["cka"])
    with open_store(store) as opened:
        sample = sample_rows(opened, 8)
        strides = {level.name: level.stride_px for level in opened.pyramid}
    collector = GramCollector(8)
    for level, maps in live_maps(store, data).items():
        for x in maps:
            collector.add(level, cut_to(x, strides[level], sample.shown_hw))
    grams = list(collector.grams.values())
    assert np.abs(np.array(cka_matrix(grams, grams, "unbiased")) - stored).max() < 2e-3


def test_blocks_of_two_weights(data: Path, tmp_path: Path) -> None:
    words = ("--model", "swinv2-nano", "--weights", "timm,random:1", "--dataset", "ade20k", "--data", data)
    found = analyse(tmp_path, "--kind", "cka", *words, "--crop-size", 64, "--rows", 6)
    own, other, between = found["matrices"]
    assert own["rows"] == [f"s{stage}.b{block}" for stage in (1, 2, 3, 4) for block in (1, 2)]
    assert np.diag(np.array(own["cka"], float)) == pytest.approx(np.ones(8))
    assert np.diag(np.array(other["cka"], float)) == pytest.approx(np.ones(8))
    assert between["rows"] == own["rows"]
    assert len({each["weights_sha256"] for each in found["backbones"]}) == 2


def test_attention_of_windows_and_kernels_of_convolutions(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", "swinv2-nano", "--dataset", "ade20k", "--data", data, "--crop-size", 96, "--rows", 4)
    found = analyse(tmp_path / "a", "--kind", "attention", *words)
    (weights,) = found["weights"]
    assert list(weights["layers"]) == [f"s{s}.b{b}" for s in (1, 2, 3, 4) for b in (1, 2)]
    assert weights["layers"]["s2.b1"]["queries"] == 4 * 12 * 12
    assert "windows do not divide stage 2 (12x12 cells in windows of 8)" in capsys.readouterr().out
    assert main(["analyse", "--kind", "attention", "--model", "timm:resnet18", *map(str, words[2:6])]) == 2
    assert "no transformer" in capsys.readouterr().err
    words = ("--model", "timm:convnext_atto", "--weights", "random:1,random:2")
    found = analyse(tmp_path / "k", "--kind", "kernels", *words)
    assert [len(of) for of in found["weights"].values()] == [12, 12]
    assert main(["analyse", "--kind", "kernels", "--model", "swinv2-nano"]) == 2
    assert "no depth-wise convolutions" in capsys.readouterr().err


@pytest.mark.ci
def test_pictures_of_features_and_neighbours(store: Path, data: Path, tmp_path: Path) -> None:
    found = analyse(tmp_path / "p", "--kind", "pca", "--store", store, "--data", data)
    with open_store(store) as opened:
        sizes = opened.valid_hw.tolist()
    # Cells that hold nothing but padding are no cells.
    assert found["cells"] == {
        level: sum(max(1, y // px) * max(1, x // px) for y, x in sizes)
        for level, px in (("p2", 4), ("p3", 8), ("p4", 16), ("p5", 32))
    }
    live = ("--model", "swinv2-nano", "--dataset", "ade20k", "--data", data, "--crop-size", 64)
    assert len(analyse(tmp_path / "l", "--kind", "pca", *live, "--levels", "p4")["rows"]) == 8
    words = ("--kind", "neighbours", "--store", store, "--data", data, "--levels", "p4")
    first = analyse(tmp_path / "n", *words)["queries"]
    assert len(first) == 6 and all(len(query["neighbours"]) == 5 for query in first)
    assert all(query["key"] not in {n["key"] for n in query["neighbours"]} for query in first)
    (query,) = analyse(tmp_path / "q", *words, "--query", f"{first[3]['key']}@1x2")["queries"]
    assert query["key"] == first[3]["key"] and query["cell"] == [1, 2]
    assert main(["analyse", *map(str, words), "--query", f"{first[0]['key']}@9x9"]) == 2


def test_a_data_set_of_one_split_is_looked_at_all_the_same(tmp_path: Path) -> None:
    """Live analyses read a test split; a folder of photographs often has none."""
    rng = np.random.default_rng(0)
    for number in range(4):
        folder = tmp_path / "photos" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (80, 72, 3), np.uint8)).save(folder / f"{number}.png")
    description = tmp_path / "photos.yaml"
    description.write_text(
        "name: photos\nlayout: imagefolder\ndata: photos\nsplits: {train: {images: train}}\nclasses: [a, b]\n"
    )
    live = ("--model", "swinv2-nano", "--dataset", description, "--crop-size", 64, "--levels", "p4")
    found = analyse(tmp_path / "l", "--kind", "pca", *live)
    assert found["of"]["images"]["split"] == "train" and len(found["rows"]) == 4


def test_codec_error_of_every_channel(store: Path, data: Path, tmp_path: Path) -> None:
    found = analyse(
        tmp_path / "c", "--kind", "codec", "--store", store, "--data", data, "--weights", "random:0"
    )
    live = live_maps(store, data)
    for level, channels in (("p2", 24), ("p5", 192)):
        of, x = found["levels"][level], np.stack(live[level]).transpose(0, 2, 3, 1)
        made = codec("int8")
        decoded = np.concatenate([made.decode(made.encode(row[None])) for row in x])
        assert len(of["channels"]) == channels and of["recorded"]["median"] > 0
        assert of["channels"] == pytest.approx(channel_errors(x, decoded).tolist(), rel=1e-3)
        assert of["worst_channels"][0]["error"] == max(of["channels"])
    alone = analyse(tmp_path / "r", "--kind", "codec", "--store", store, "--weights", "random:5")
    assert alone["levels"]["p2"]["channels"] is None
    assert "weights_sha256" in alone["channels_not_measured"]


def test_what_a_kind_cannot_be_of_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (("--kind", "attention", "--store", store), "of --model, not of --store"),
        (("--kind", "pca"), "pass --store or --model"),
        (("--kind", "cka", "--store", store, "--model", "swinv2-nano"), "not both"),
        (("--kind", "cka", "--store", store, "--out", "x.png"), "expected a folder"),
        (("--kind", "attention", "--model", "swinv2-nano"), "pass --dataset"),
        (("--kind", "cka", "--store", store, "--levels", "p9"), "lacks p9"),
    ):
        assert main(["analyse", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
