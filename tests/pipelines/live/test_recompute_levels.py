"""Recomputed shallow levels: the same levels, losses and scores as from a store of all levels."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from extract.backbones.loading import backbone_card, load_backbone
from extract.datasets import open_dataset, view_recipe
from pipelines.__main__ import main
from pipelines.config import TrainConfig
from pipelines.feed.datamodule import Stretch
from pipelines.feed.store_feed import Batch
from pipelines.live import recompute_levels as deep_cache
from pipelines.training.open_data import open_data
from stores.format.pixel_differences import PIXEL_DIFFERENCES, differences
from stores.format.plan import Bin, DenseTarget, StorePlan
from stores.format.row_table import RowTable
from stores.pyramid import Level, PyramidSpec
from stores.reading.reader import open_store
from stores.shards.zstd_frames import encode_frame
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file
from tests.pipelines.extracted import WEIGHTS, extract_store, write_coloured_data
from tests.test_layers import loaded_after

CPU = torch.device("cpu")
DEEP = {"levels": ("p4", "p5")}
STEPS = 30


class Made:
    """Stores of the same views: all levels, deep ones with pixels, deep ones alone; and their test stores."""

    def __init__(self, root: Path) -> None:
        self.data = write_coloured_data(root, training=6, validation=2)
        kinds: dict[str, dict[str, Any]] = {
            "full": {},
            "stored": {**DEEP, "pixels": "stored"},
            "source": DEEP,
        }
        for folder, more in kinds.items():
            stores = root / folder
            setattr(self, folder, stores)
            extract_store(self.data, stores, "float16", "training", 2, **more)
            if more:
                extract_store(self.data, stores, "float16", "validation", **more)

    full: Path
    stored: Path
    source: Path

    def training_store(self, folder: Path) -> Path:
        return next(folder.glob("*-training-*"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("deep"))


def first_batch(store: Path, **settings: Any) -> Batch:
    config = TrainConfig(
        head="bifpn1", store=(str(store),), stores=str(store.parent), batch_size=5, **settings
    )
    data = open_data(config, CPU)
    data.levels = data.pyramid.names
    try:
        return next(iter(data.batches(Stretch(start_step=0, stop_step=1, device=CPU))))
    finally:
        data.close()


@pytest.mark.parametrize("pixels", ["stored", "source"])
def test_recomputed_levels_are_those_of_the_whole_backbone(made: Made, pixels: str) -> None:
    """Bit for bit on a CPU; the stored levels are the store's own."""
    store = made.training_store(getattr(made, pixels))
    settings = {"data": str(made.data), "pixels": "source"} if pixels == "source" else {}
    batch = first_batch(store, **settings)
    assert list(batch.features) == ["p2", "p3", "p4", "p5"]
    backbone = load_backbone(backbone_card("swinv2-nano"), WEIGHTS)
    with open_store(made.training_store(made.stored)) as whole:
        first_view = dict(
            zip(zip(whole.keys, whole.views.tolist(), strict=True), range(len(whole)), strict=True)
        )
        for index, key in enumerate(batch.keys):
            candidates = [first_view[key, view] for view in (0, 1)]
            levels = [
                backbone(
                    torch.from_numpy(whole.read_pixels([row])), torch.from_numpy(whole.valid_hw[[row]].copy())
                )
                for row in candidates
            ]
            found = batch.features["p2"][index].permute(1, 2, 0).numpy()
            row, view = next(
                (row, of) for row, of in zip(candidates, levels, strict=True)
                if found.tobytes() == of["p2"][0].numpy().tobytes()
            )  # fmt: skip
            p3 = batch.features["p3"][index].permute(1, 2, 0).numpy()
            assert p3.tobytes() == view["p3"][0].numpy().tobytes()
            stored = whole.read_features([row], ("p4",))["p4"][0]
            np.testing.assert_array_equal(batch.features["p4"][index].numpy(), stored)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in batch.features.values())
    assert not any(x.is_inference() for x in batch.features.values())


def train(folder: Path, run: Path, *words: str) -> npt.NDArray[np.float64]:
    """The losses of each step."""
    line = f"""train-head --head linear --device cpu --log-every 1 --batch-size 2
        --lr 1e-3 --schedule.warmup-steps 0 --val-every 0 --stores {folder} --run {run} --max-steps {STEPS}"""
    assert main([*line.split(), *words]) == 0
    with (run / "metrics.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file) if row["loss"]])


@pytest.mark.ci
def test_losses_and_scores_are_those_of_a_full_store(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """float16 rounds the shallow levels of the full store by 2^-11, and so differ the losses."""
    full = train(made.full, tmp_path / "full")
    stored = train(made.stored, tmp_path / "stored")
    difference = np.abs(stored / full - 1)
    assert difference[0] < 1e-4 and 0 < difference.max() < 1e-3, difference
    images = ("--pixels", "source", "--data", str(made.data))
    source = train(
        made.source, tmp_path / "source", *images, "--max-steps", "3", "--schedule.shape", "constant"
    )
    assert source[0] == stored[0], "the same pixels, hence the same bits"

    def scores(run: str, *words: str) -> dict[str, float]:
        capsys.readouterr()
        assert main(["evaluate", "--run", str(tmp_path / run), "--json", *words]) == 0
        found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])["scores"]
        return found

    live = scores("stored", "--live", "--data", str(made.data), "--short-side", "64")
    assert scores("stored") == pytest.approx(live, abs=0.02), "of the deep test store with pixels"
    of_images = scores("source", "--pixels", "source", "--stores", str(made.source))
    assert of_images == scores("source", "--stores", str(made.stored)), "--data as recorded in the run"
    assert main(["evaluate", "--run", str(tmp_path / "source")]) == 2, "no test store holds or makes p2"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 2, "needs level p2, p3"),
        ("--pixels stored", 2, "extract with --pixels stored"),
        ("--pixels source --data nowhere", 2, "nowhere"),
        ("--pixels source --data DATA --weights-of 1", 3, "weights"),
        ("--pixels source --data OTHER", 3, "sha256"),
        ("--pixels source --data GONE", 3, "no file"),
    ],
)
def test_what_cannot_be_recomputed_is_refused(
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    code: int,
    message: str,
) -> None:
    other = tmp_path / "other" / made.data.name
    shutil.copytree(made.data, other)
    image = min((other / "images" / "training").iterdir())
    for each in (other / "images" / "training").iterdir():  # same names, other bytes
        if each != image:
            each.write_bytes(image.read_bytes())
    if "GONE" in words:
        for each in (made.data / "images" / "training").iterdir():
            shutil.copy(each, other / "images" / "training")
        words = words.replace("GONE", "OTHER")
        real = deep_cache.open_dataset

        def opened_then_emptied(*arguments: Any) -> Any:
            dataset = real(*arguments)
            shutil.rmtree(other / "images" / "training", ignore_errors=True)  # opened for validation too
            return dataset

        monkeypatch.setattr(deep_cache, "open_dataset", opened_then_emptied)
    text = words.replace("DATA", str(made.data)).replace("OTHER", str(other))
    store = made.training_store(made.source)
    if "--weights-of 1" in text:
        text = text.replace("--weights-of 1", "--weights random:1")
    command = f"train-head --head bifpn1 --store {store} --run {tmp_path / 'run'} --device cpu --max-steps 4 "
    assert main([*command.split(), "--batch-size", "4", *text.split()]) == code
    assert message in capsys.readouterr().err


def test_a_head_of_the_deep_levels_needs_no_backbone(made: Made, tmp_path: Path) -> None:
    config = TrainConfig(head="bifpn1", store=(str(made.training_store(made.stored)),), batch_size=2)
    data = open_data(config, CPU)
    data.levels = ("p4", "p5")
    batch = next(iter(data.batches(Stretch(start_step=0, stop_step=1, device=CPU))))
    data.close()
    assert list(batch.features) == ["p4", "p5"]


@pytest.mark.ci  # a process of its own imports everything
def test_training_from_a_full_store_loads_no_backbone() -> None:
    modules = ("verbs.train_head", "verbs.evaluate", "training.several_runs.many_heads", "feed.datamodule")
    loaded = loaded_after(
        "\n".join(f"import pipelines.{module}" for module in modules),
        "timm",
        "extract.backbones.loading",
        "extract.sources.byte_sources",
        "pipelines.live.recompute_levels",
    )
    assert loaded == set()


def swinv2_b_plan(rows: int, levels: tuple[str, ...], *, pixels: bool) -> StorePlan:
    """int8 training rows of SwinV2-B at 512 px, with label maps."""
    pyramid = PyramidSpec(
        tuple(Level(name=f"p{s + 1}", stride_px=2 << s, channels=64 << s, stage=s) for s in (1, 2, 3, 4))
    )
    size = np.full((rows, 2), 512)
    return StorePlan(
        name="made-training-swinv2-b-int8",
        identity={},
        pyramid=pyramid.select(levels),
        codec="int8",
        codec_settings={},
        bins=(Bin(height_px=512, width_px=512, rows=rows, shard_rows=16),),
        targets=(DenseTarget("labels", "uint8", ("y", "x")),),
        view_params=(),
        rows=RowTable(
            keys=tuple(f"r{i}" for i in range(rows)), view=np.zeros(rows), params=np.zeros((rows, 0)),
            bin=np.zeros(rows), padded_hw=size, valid_hw=size, original_hw=size,
        ),
        pixels=pixels,
        required_features=(PIXEL_DIFFERENCES,) if pixels else (),
    )  # fmt: skip


def test_bytes_of_deep_stores_of_swinv2_b() -> None:
    """Exact but for the label maps, which are the same in all."""
    rows = 2000
    full = swinv2_b_plan(rows, ("p2", "p3", "p4", "p5"), pixels=False).total_bytes
    source = swinv2_b_plan(rows, ("p4", "p5"), pixels=False).total_bytes
    assert source / full < 0.22
    assert swinv2_b_plan(rows, ("p4", "p5"), pixels=True).total_bytes / full < 0.32


@pytest.mark.parametrize("folder", ["surrogate_from_coco_panoptic", "ADEChallengeData2016"])
def test_bytes_of_stored_pixels_of_photographs(samples: Path, folder: str) -> None:
    """Training views of real photographs: lossless, and a deep store with them below 32 % of a full one."""
    dataset = open_dataset("ade20k", samples / "ade20k" / folder)
    recipe, sizes = view_recipe("ade20k", "ade20k"), []
    for index, record in enumerate(dataset.records):
        view = recipe.view("ade20k", record, index, 0, dataset.read_truth(index))
        (pixels,) = dataset.media.render(dataset.read_source(index), record, [view])
        assert pixels.shape == (512, 512, 3)
        sizes.append(len(encode_frame(differences(pixels))))
    rows = 2000
    full = swinv2_b_plan(rows, ("p2", "p3", "p4", "p5"), pixels=False).total_bytes
    source = swinv2_b_plan(rows, ("p4", "p5"), pixels=False).total_bytes
    assert (source + rows * np.mean(sizes)) / full < 0.32
