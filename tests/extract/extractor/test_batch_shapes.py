"""Batches that a device's memory holds: found before a store is begun, halved until a shard is finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pipelines.engines.one_process
from extract.backbones.loading import FrozenBackbone
from extract.datasets import open_dataset
from extract.extractor.batch_shapes import BatchTooLarge, fit_batches, try_sizes
from pipelines.__main__ import main
from stores.checks.verify import verify_store
from stores.errors import PlanError
from stores.format.manifest import PLAN_NAME
from stores.work.claims import Claims
from stores.writing.writer import StoreWriter
from tests.extract.datasets.made_ade20k import write_folder
from tests.extract.extractor.extraction import Wrapped, planned, row_digests, run

ROW_PX = 64 * 64
SETTINGS = {"batch_rows": 4, "shard_rows": 4, "levels": ("p5",)}


class SmallMemory:
    """A backbone on a device that holds so many pixels, fewer after some calls."""

    def __init__(self, backbone: FrozenBackbone, most_px: int, *, later: tuple[int, int] = (0, 0)) -> None:
        self._backbone, self._most_px, self._later = backbone, most_px, later
        self.card, self.device, self.precision = backbone.card, backbone.device, backbone.precision
        self.weights_sha256, self.pyramid = backbone.weights_sha256, backbone.pyramid
        self.batches: list[int] = []

    def __call__(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> Mapping[str, Tensor]:
        calls, then_px = self._later
        most_px = then_px if calls and len(self.batches) >= calls else self._most_px
        if pixels_NHWC[..., 0].numel() > most_px:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd a paragraph.")
        self.batches.append(len(pixels_NHWC))
        return self._backbone(pixels_NHWC, valid_hw)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("batch_shapes", "run"):
        monkeypatch.setattr(f"extract.extractor.{module}.shape_matters", lambda device: True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), training=9, validation=4)


@pytest.mark.parametrize(
    "said", ["CUDA out of memory. Tried to allocate 2 GiB.", "CUBLAS_STATUS_ALLOC_FAILED"]
)
def test_an_image_that_does_not_fit_is_refused(root: Path, backbone: FrozenBackbone, said: str) -> None:
    plan = planned(open_dataset("ade20k", root, "training"), backbone, shard_rows=8, batch_rows=8)

    def fails(level: str, x: Tensor) -> Tensor:
        raise RuntimeError(f"{said}\nAnd a paragraph.")

    with pytest.raises(BatchTooLarge) as error:
        try_sizes(plan, Wrapped(backbone, fails))
    assert str(error.value) == (
        f"one row of 64x64 px does not fit the device's memory ({said}): choose a smaller backbone or "
        "smaller views, or --device cpu"
    )


def test_the_shape_is_what_fits(root: Path, backbone: FrozenBackbone) -> None:
    plan = planned(open_dataset("ade20k", root, "training"), backbone, shard_rows=8, batch_rows=8)
    for most_rows, found in ((8, 8), (7, 4), (3, 2), (1, 1)):
        fitted = fit_batches(plan, SmallMemory(backbone, most_rows * ROW_PX))
        assert [b.batch_rows for b in fitted.bins] == [found]
        assert fitted.identity_digest == plan.identity_digest
    with pytest.raises(BatchTooLarge, match=r"one row of 64x64 px .*\(CUDA out of memory.* GiB\.\)"):
        fit_batches(plan, SmallMemory(backbone, ROW_PX - 1))


def test_no_bin_has_a_batch_of_more_pixels_than_fit(root: Path, backbone: FrozenBackbone) -> None:
    dataset = open_dataset("ade20k", root, "validation")
    plan = planned(dataset, backbone, recipe="ms-flip", shard_rows=4, batch_rows=4)
    assert len(plan.bins) > 3
    largest = max(b.height_px * b.width_px for b in plan.bins)
    fitted = fit_batches(plan, SmallMemory(backbone, 2 * largest))
    assert all((b.batch_rows or 1) * b.height_px * b.width_px <= 2 * largest for b in fitted.bins)
    assert max(b.batch_rows or 1 for b in fitted.bins) > 1


def test_batches_are_halved_before_the_first_receipt(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    small = SmallMemory(backbone, 2 * ROW_PX)
    path, summary = run(root, tmp_path / "small", small, **SETTINGS)
    assert summary.rows_written == 9 and set(small.batches) == {2}
    assert "a batch of 4 rows of 64x64 px does not fit the device's memory; continuing with 2" in caplog.text
    assert '"batch_rows":2' in (path / PLAN_NAME).read_text().replace(" ", "")
    assert verify_store(path, full=True).ok
    assert row_digests(path) == row_digests(run(root, tmp_path / "large", backbone, **SETTINGS)[0])


def test_after_a_receipt_it_stops_and_resumes_later(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "shard_rows": 1, "batch_rows": 1}
    tight = SmallMemory(backbone, ROW_PX, later=(6, 0))  # two shards at most are in the making
    with pytest.raises(BatchTooLarge, match="shards are finished with batches of this shape") as caught:
        run(root, tmp_path, tight, **settings)
    assert caught.value.resumable
    path, summary = run(root, tmp_path, backbone, **settings)
    assert 0 < summary.rows_written < 9 and verify_store(path, full=True).ok


def test_batches_are_not_halved_under_another_process(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = StoreWriter.open_or_create

    def beside_another(*arguments: Any, **more: Any) -> StoreWriter:
        writer = begin(*arguments, **more)
        assert Claims(writer.path).take("64x64-1")
        return writer

    monkeypatch.setattr(StoreWriter, "open_or_create", beside_another)
    with pytest.raises(BatchTooLarge, match="works on shards with the present batch size") as caught:
        run(root, tmp_path, SmallMemory(backbone, 2 * ROW_PX), batch_rows=4, shard_rows=8)
    assert caught.value.resumable


def test_a_store_with_finished_shards_keeps_its_batches(
    root: Path, tmp_path: Path, backbone: FrozenBackbone
) -> None:
    path, _ = run(root, tmp_path, backbone, **SETTINGS)
    dataset = open_dataset("ade20k", root, "training")
    writer = StoreWriter.open_or_create(tmp_path, planned(dataset, backbone, **SETTINGS))
    before = (path / PLAN_NAME).read_bytes()
    with pytest.raises(PlanError, match="can no longer change"):
        writer.set_batch_rows([2])
    assert (path / PLAN_NAME).read_bytes() == before


def test_extract_finds_the_shape_and_says_how_to_resume(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(memory: SmallMemory) -> None:
        monkeypatch.setattr(pipelines.engines.one_process, "load_backbone", lambda *_, **__: memory)

    words = f"extract --dataset ade20k --data {root} --model swinv2-nano --weights random:0 --crop-size 64"
    words += f" --stores {tmp_path} --device cpu --levels p5 --shard-rows 2"
    load(SmallMemory(backbone, ROW_PX, later=(7, 0)))
    assert main(words.split()) == 1
    error = capsys.readouterr().err
    assert f": python -m pipelines {words}" in error and "Traceback" not in error
    (plan,) = tmp_path.glob("*/plan.json")
    assert '"batch_rows":1' in plan.read_text().replace(" ", "")
    load(SmallMemory(backbone, ROW_PX))
    assert main(words.split()) == 0
