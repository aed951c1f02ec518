"""A run on new images: the same answers as from the store, as files, and without store or Lightning."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from extract.datasets import open_dataset
from extract.sources.byte_sources import decode_image
from extract.views.view import View
from pipelines import load_run
from pipelines.__main__ import main
from pipelines.config import EvaluateConfig, ScheduleConfig, TrainConfig
from pipelines.evaluation.store_views import store_views
from pipelines.runs import run_folder as runs
from pipelines.runs.trained_head import load_head
from pipelines.tasks.segmentation import record_scores
from pipelines.verbs import evaluate, train_head
from stores.reading.reader import open_store
from tests.pipelines.extracted import CROP_PX, MODEL, WEIGHTS, extract_store, write_coloured_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured_data(tmp_path_factory.mktemp("data"))


@dataclasses.dataclass(frozen=True)
class Trained:
    run: Path
    test_store: Path
    codec: str


@pytest.fixture(scope="module", params=["float16", "int8"])
def trained(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    extract_store(data, folder / "features", request.param, "training")
    test_store = extract_store(data, folder / "features", request.param, "validation")
    train_head.run(
        TrainConfig(
            head="linear",
            stores=str(folder / "features"),
            run=str(folder / "run"),
            max_steps=20,
            batch_size=4,
            schedule=ScheduleConfig(warmup_steps=0),
            device="cpu",
        )
    )
    return Trained(folder / "run", test_store, request.param)


def test_new_images_get_what_evaluate_measured(trained: Trained, data: Path) -> None:
    """Probabilities within the codec's error, and the same class nearly everywhere."""
    model = load_run(trained.run)
    dataset = open_dataset("ade20k", data, "validation")
    head, _ = load_head(trained.run, CPU)
    share, largest = [], 0.0
    with open_store(trained.test_store) as store:
        views = store_views(store, head.levels, ("original_labels",), CPU)
        from_store = record_scores(head, views, device=CPU, bf16=False)
        for view, expected_KHW in from_store:
            index = next(i for i, record in enumerate(dataset.records) if record.key == view.key)
            (found_KHW,) = model([decode_image(dataset.read_source(index))])
            assert found_KHW.shape == expected_KHW.shape
            share.append(float((found_KHW.argmax(0) == expected_KHW.argmax(0)).float().mean()))
            largest = max(largest, float((found_KHW - expected_KHW).abs().max()))
    assert len(share) == 4
    assert np.mean(share) >= (0.999 if trained.codec == "float16" else 0.99)
    assert largest < (1e-3 if trained.codec == "float16" else 3e-2)


@pytest.mark.parametrize("views", ["single", "ms-flip"])
@pytest.mark.ci
def test_live_views_score_as_the_store_does(
    trained: Trained, data: Path, views: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = trained.test_store
    if views == "ms-flip":
        store = extract_store(data, tmp_path, trained.codec, "validation", "ms-flip")
    stored = evaluate.run(EvaluateConfig(run=str(trained.run), store=str(store), device="cpu"))
    capsys.readouterr()
    live = evaluate.run(
        EvaluateConfig(run=str(trained.run), live=True, data=str(data), views=views, device="cpu")
    )
    assert live["miou"] == pytest.approx(stored["miou"], abs=0.005)
    assert live["pixel_accuracy"] == pytest.approx(stored["pixel_accuracy"], abs=0.005)
    name = {"single": "(single)", "ms-flip": "(ms+flip)"}[views]
    assert name in capsys.readouterr().out and live["records"] == 4


def test_load_run_gives_a_plain_module(trained: Trained) -> None:
    model = load_run(trained.run)
    assert isinstance(model, torch.nn.Module) and not model.training
    images = [np.full((50, 70, 3), 90, np.uint8), np.zeros((64, 64, 3), np.uint8)]
    found = model(images)
    assert [tuple(each.shape) for each in found] == [(150, 50, 70), (150, 64, 64)]
    assert all(torch.allclose(each.sum(0), torch.ones(()), atol=1e-5) for each in found)


@pytest.mark.parametrize("trained", ["float16"], indirect=True)
def test_load_run_needs_neither_store_nor_lightning(trained: Trained) -> None:
    code = (
        "import sys, numpy, pipelines\n"
        f"model = pipelines.load_run({str(trained.run)!r})\n"
        "model([numpy.zeros((32, 40, 3), numpy.uint8)])\n"
        "print(sorted({'lightning', 'zarr', 'stores.reading.reader'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr


def test_folders_give_pictures_labels_and_figures(
    trained: Trained, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    source = next((data / "images" / "validation").iterdir())
    (images / "good.jpg").write_bytes(source.read_bytes())
    Image.open(source).convert("L").save(images / "good.png")
    Image.open(source).convert("CMYK").save(images / "below" / "print.jpg")
    (images / "broken.jpg").write_bytes(source.read_bytes()[:300])
    (images / "notes.txt").write_text("not an image")
    words = [
        "predict",
        "--run",
        str(trained.run),
        "--input",
        str(images),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert main([*words, "--device", "cpu"]) == 0
    output = capsys.readouterr()
    summary = json.loads(output.out.splitlines()[-1])
    assert list(summary["failed"]) == [str(images / "broken.jpg")] and "broken.jpg" in output.err + str(
        summary
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        f"{stem}.{ending}"
        for stem in ("good.jpg", "good.png", "below__print")
        for ending in ("overlay.png", "labels.png", "json")
    } | {"labels.csv"}
    check_files(tmp_path / "out" / "good.jpg", decode_image(source.read_bytes()))


def check_files(base: Path, rgb: np.ndarray) -> None:
    with Image.open(f"{base}.labels.png") as picture:
        labels, colours = np.asarray(picture), np.asarray(picture.convert("RGB"))
        assert picture.mode == "P", "viewers show its classes"
    with (base.parent / "labels.csv").open(newline="") as file:
        legend = {int(row["value"]): row for row in csv.DictReader(file)}
    assert list(legend) == list(range(150)) and legend[2]["name"] == "sky"
    for value in np.unique(labels):
        named = tuple(int(legend[value][channel]) for channel in ("red", "green", "blue"))
        assert {tuple(each) for each in colours[labels == value].tolist()} == {named}
    whole = np.asarray(Image.open(f"{base}.overlay.png"))
    overlay, legend_strip = np.split(whole, [len(rgb)])
    assert len(legend_strip) > 10, "the classes are named below"
    figures = json.loads(Path(f"{base}.json").read_text())
    assert labels.dtype == np.uint8 and labels.shape == rgb.shape[:2] and overlay.shape == rgb.shape
    assert sum(item["share"] for item in figures["classes"]) == pytest.approx(1)
    first = figures["classes"][0]
    assert first["name"] == legend[first["class"]]["name"]
    assert first["share"] == pytest.approx((labels == first["class"]).mean())
    assert 0 < figures["mean_confidence"] <= 1


def test_one_image(trained: Trained, data: Path) -> None:
    source = next((data / "images" / "validation").iterdir())
    assert main(["predict", "--run", str(trained.run), "--input", str(source), "--device", "cpu"]) == 0
    assert (trained.run / "predictions" / f"{source.stem}.labels.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--input", "{empty}"], 2, "no images there"),
        (["--input", "{empty}/absent.jpg"], 2, "no such file or folder"),
        (["--input", "{image}", "--weights", "random:1"], 3, "backbone.weights_sha256"),
        (["--input", "{image}", "--weights", "absent.pth"], 2, "no weights at absent.pth"),
    ],
)
def test_refusals(
    arguments: list[str],
    code: int,
    words: str,
    trained: Trained,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = next((data / "images" / "validation").iterdir())
    filled = [word.format(empty=tmp_path, image=image) for word in arguments]
    assert main(["predict", "--run", str(trained.run), "--device", "cpu", *filled]) == code
    assert words in capsys.readouterr().err


def test_only_broken_images_are_a_failure(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    assert main(["predict", "--run", str(trained.run), "--input", str(tmp_path), "--device", "cpu"]) == 1
    assert "none of the 1 images" in capsys.readouterr().err


@pytest.mark.parametrize("trained", ["float16"], indirect=True)
@pytest.mark.ci
def test_what_fails_for_one_file_never_ends_the_batch(
    trained: Trained,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A decoder error, an image that memory does not hold, no memory while it is predicted, a pipe."""
    images = tmp_path / "images"
    images.mkdir()
    source = next((data / "images" / "validation").iterdir()).read_bytes()
    for name in ("a.jpg", "m.jpg", "z.jpg"):
        (images / name).write_bytes(source)
    (images / "broken.jpg").write_bytes(source[:300])
    Image.new("L", (16000, 12000)).save(images / "huge.png")
    (images / "sparse.jpg").write_bytes(source)
    with (images / "sparse.jpg").open("r+b") as file:
        file.truncate(7 << 30)
    apply_image, failed = View.apply_image, []

    def no_memory_for_m(view: View, rgb: np.ndarray) -> np.ndarray:
        if predicted() == ["a"] and not failed:
            failed.append("m")
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory\nframe #0: c10")
        return apply_image(view, rgb)

    def predicted() -> list[str]:
        return sorted(path.stem for path in (tmp_path / "out").glob("*.json"))

    monkeypatch.setattr(View, "apply_image", no_memory_for_m)
    words = ["predict", "--run", str(trained.run), "--input", str(images), "--out", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu", "--json"]) == 0
    reasons = json.loads(capsys.readouterr().out.splitlines()[-1])["failed"]
    assert predicted() == ["a", "z"] and not list((tmp_path / "out").glob(".*"))
    assert {Path(path).name: words for path, words in reasons.items()} == {
        "broken.jpg": reasons[str(images / "broken.jpg")],
        "huge.png": "a decompression bomb: far more pixels than any photograph",
        "m.jpg": "out of memory ([enforce fail] DefaultCPUAllocator: can't allocate memory)",
        "sparse.jpg": "a file of 7.5 GB: larger than any image",
    }
    monkeypatch.undo()
    assert main([*words, "--device", "cpu", "--max-failed", "2"]) == 1
    assert "3 of 6 images could not be predicted, more than --max-failed 2" in capsys.readouterr().err
    assert predicted() == ["a", "m", "z"]


def test_online_training_sees_the_views_of_a_store(data: Path, tmp_path: Path) -> None:
    """Visit 0 of a record is its view 0: features and labels are those of a float16 store's row."""
    from pipelines.feed.datamodule import Stretch
    from pipelines.feed.online_data import OnlineData

    stores = tmp_path / "features"
    path = extract_store(data, stores, "float16", "training")
    config = TrainConfig(
        head="linear",
        online=True,
        dataset="ade20k",
        model=MODEL,
        weights=WEIGHTS,
        data=str(data),
        crop_size=CROP_PX,
        stores=str(stores),
        run=str(tmp_path / "run"),
        max_steps=4,
        batch_size=4,
        device="cpu",
    )
    online = OnlineData.open(config, CPU)
    with open_store(path) as store:
        for batch in [next(online.batches(Stretch(start_step=0, stop_step=4, device=CPU)))]:
            for position, key in enumerate(batch.keys):
                row = store.row_of(key, 0)
                for level, x_NCyx in store.read_features([row]).items():
                    live = batch.features[level][position].numpy()
                    assert np.array_equal(x_NCyx[0], live.astype(np.float16).astype(np.float32))
                labels = store.read_targets([row], ("labels",))[0]["labels"]
                assert np.array_equal(batch.targets[position]["labels"], labels)
                assert batch.valid_hw[position] == tuple(store.valid_hw[row])
    online.close()
    summary = train_head.run(config)
    assert summary["steps"] == 4 and runs.read_run(tmp_path / "run").stores == ()
