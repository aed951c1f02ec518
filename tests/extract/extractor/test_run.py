"""Extraction end to end: rows equal the live backbone's, however they are batched, resumed or sharded."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.backbones.loading import FrozenBackbone
from extract.datasets import open_dataset
from extract.extractor import batch_order
from extract.extractor.row_loader import RowLoader
from extract.extractor.run import Progress, extract
from extract.extractor.shard_job import ShardJob
from extract.sources.byte_sources import NOT_IN_SUBSET, decode_image
from extract.views.view import View
from stores import open_store, verify_store
from stores.checks.status import store_status
from stores.errors import CodecError, IdentityError
from stores.writing.writer import StoreWriter
from tests.extract.datasets.made_ade20k import make_pairs, write_folder, write_split
from tests.extract.extractor.extraction import (
    Stopping,
    Wrapped,
    live_levels,
    planned,
    row_digests,
    run,
    skipped,
)
from tests.unfinished import receipts_of
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), training=9, validation=6)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory, backbone: FrozenBackbone) -> Path:
    """A training store of two views, shards of four rows and batches of two; its last shard is short."""
    stores = tmp_path_factory.mktemp("stores")
    return run(root, stores, backbone, views=2, shard_rows=4, batch_rows=2, pixels=True)[0]


@pytest.mark.parametrize("codec_name", ["int8", "float16", "int4", "q2"])
@pytest.mark.parametrize("split", ["training", "validation"])
def test_rows_are_the_live_backbones_through_the_codec(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, split: str, codec_name: str
) -> None:
    path, summary = run(root, tmp_path, backbone, split=split, codec=codec_name, pixels=True)
    dataset = open_dataset("ade20k", root, split)
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    with open_store(path) as store:
        assert len(store) == summary.rows_written == len(dataset.records)
        for row, key in enumerate(store.keys):
            index, view = index_of[key], View.from_params(store.params[row])
            pixels = view.apply_image(decode_image(dataset.read_source(index)))
            assert np.array_equal(store.read_pixels([row])[0], pixels)
            found = store.read_encoded([row])
            for level, x in live_levels(backbone, pixels, view.valid_hw).items():
                for name, array in store.plan.level_codec(level).encode(x[None]).items():
                    assert found[level][name].tobytes() == array.tobytes(), (key, level, name)
            targets, labels = store.read_targets([row])[0], dataset.read_truth(index)
            assert np.array_equal(targets["labels"], view.apply_labels(labels))
            if split == "validation":
                assert np.array_equal(targets["original_labels"], labels)
    assert verify_store(path, full=True).ok


def test_a_finished_store_is_left_as_it_is(root: Path, trained: Path, backbone: FrozenBackbone) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    watched = Wrapped(backbone, lambda level, x: x)
    path, summary = run(root, trained.parent, watched, views=2, shard_rows=4, pixels=True)
    assert (path, summary.rows_written, summary.shards, watched.calls) == (trained, 0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("batch_rows", "workers", "shard_rows"), [(1, 1, 4), (3, 3, 4), (4, 2, 1), (4, 1, 16)]
)
def test_rows_do_not_depend_on_batches_workers_or_shards(
    root: Path,
    tmp_path: Path,
    trained: Path,
    backbone: FrozenBackbone,
    batch_rows: int,
    workers: int,
    shard_rows: int,
) -> None:
    path, _ = run(
        root,
        tmp_path,
        backbone,
        workers=workers,
        batch_rows=batch_rows,
        shard_rows=shard_rows,
        views=2,
        pixels=True,
    )
    assert row_digests(path) == row_digests(trained)


def test_rows_do_not_depend_on_their_batch_or_position(
    tmp_path: Path, trained: Path, backbone: FrozenBackbone
) -> None:
    pairs = make_pairs(9, "training")
    expected = row_digests(trained)
    alone = dict(list(pairs.items())[4:5])
    others = {**dict(list(pairs.items())[3:8]), "ADE_train_00000077": pairs["ADE_train_00000001"]}
    for name, chosen in (("alone", alone), ("others", others)):
        write_split(tmp_path / name, "training", chosen)
        path, _ = run(tmp_path / name, tmp_path / "stores", backbone, views=2, shard_rows=4, pixels=True)
        rows = {row: digest for row, digest in row_digests(path).items() if row[0] in pairs}
        assert len(rows) == 2 * len(chosen.keys() & pairs.keys())
        assert rows.items() <= expected.items()


def content(path: Path) -> dict[str, bytes]:
    """All files of a store but receipts, which name their writer, and what binds them."""
    files = (
        p
        for p in path.rglob("*")
        if p.is_file() and p.parent.name != "receipts" and p.name != "MANIFEST.json"
    )
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.mark.parametrize("after_shards", [0, 1, 3])
def test_a_resumed_extraction_writes_the_same_bytes(
    root: Path,
    tmp_path: Path,
    trained: Path,
    backbone: FrozenBackbone,
    after_shards: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Begun view after view and stopped within a shard, continued with both views side by side."""
    monkeypatch.setattr(batch_order, "IMAGE_VIEWS", 1)
    settings = {"views": 2, "shard_rows": 4, "pixels": True}
    stopping = Stopping(backbone, tmp_path, 2 * after_shards + 1, after_shards)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, stopping, batch_rows=2, **settings)
    path = next(tmp_path.iterdir())
    assert not list(path.rglob("*.partial"))  # what was not finished is gone
    assert len(store_status(path).missing) == 5 - after_shards
    monkeypatch.undo()
    again, summary = run(root, tmp_path, backbone, batch_rows=1, workers=1, **settings)
    assert (again, summary.shards) == (path, 5 - after_shards)
    assert content(path) == content(trained)
    assert verify_store(path, full=True).ok


def test_levels_are_selected(root: Path, tmp_path: Path, trained: Path, backbone: FrozenBackbone) -> None:
    deep = Wrapped(backbone, lambda level, x: x)
    path, _ = run(root, tmp_path, deep, levels=("p4", "p5"), views=2)
    with open_store(path) as store, open_store(trained) as full:
        assert store.levels == ("p4", "p5")
        assert list(store.keys) == list(full.keys)
        for level, features in store.read_features(range(len(store))).items():
            assert np.array_equal(features, full.read_features(range(len(full)), (level,))[level])


def test_a_subset_fills_its_rows_only(
    root: Path, tmp_path: Path, trained: Path, backbone: FrozenBackbone
) -> None:
    chosen = open_dataset("ade20k", root, subset="30%").subset
    assert chosen is not None and len(chosen) == 3
    progress: list[Progress] = []
    path, summary = run(
        root, tmp_path, backbone, subset="30%", views=2, shard_rows=4, pixels=True, progress=progress.append
    )
    expected = {row: digest for row, digest in row_digests(trained).items() if row[0] in chosen}
    assert row_digests(path) == expected
    assert (summary.rows_written, summary.skipped) == (6, [])
    assert (progress[-1].rows_done, progress[-1].rows_total, progress[-1].failed_records) == (6, 6, 0)
    left_out = skipped(path)
    assert len(left_out) == 12 and set(left_out.values()) == {(NOT_IN_SUBSET, "not in the subset")}
    assert verify_store(path, full=True).ok
    on_disk = sum(file.stat().st_blocks * 512 for file in path.glob("bins/*/levels/p2/q/c.*"))
    assert on_disk < 0.7 * sum(file.stat().st_size for file in path.glob("bins/*/levels/p2/q/c.*"))


def test_progress_reports_rows_shards_and_speed(root: Path, tmp_path: Path, backbone: FrozenBackbone) -> None:
    seen: list[Progress] = []
    _, summary = run(root, tmp_path, backbone, shard_rows=4, batch_rows=2, progress=seen.append)
    assert [p.rows_done for p in seen] == sorted(p.rows_done for p in seen)
    last = seen[-1]
    assert (last.rows_done, last.rows_total, last.shards_done, last.shards_total) == (9, 9, 3, 3)
    assert sorted(p.finished_shard for p in seen if p.finished_shard) == ["64x64-0", "64x64-1", "64x64-2"]
    assert last.seconds_left == 0 and last.images_per_s > 0 and last.bytes_per_s > 0
    assert {p.bottleneck for p in seen} <= {"decode", "backbone", "write"}
    assert summary.images_per_s > 0 and summary.bytes == 9 * (
        24 * 256 + 48 * 64 + 96 * 16 + 192 * 4 + 4 * 360
    )


@pytest.mark.parametrize(
    ("owner", "name", "stage"),
    [(RowLoader, "load_views", "decode"), (ShardJob, "_write", "write"), (None, "", "backbone")],
)
@pytest.mark.ci
def test_the_bottleneck_is_named(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    stage: str,
) -> None:
    """Of a backbone that is slower than a free disk and a quick decoder, and quicker than slow ones."""
    run(root, tmp_path / "starts the decoders", backbone)

    def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slow(*arguments: Any, **more: Any) -> Any:
            time.sleep(seconds)
            return function(*arguments, **more)

        return slow

    if owner is not None:
        monkeypatch.setattr(owner, name, slowed(getattr(owner, name), 0.25))
    busy = Wrapped(backbone, slowed(lambda level, x: x, 0.01 if owner else 0.1))
    _, summary = run(root, tmp_path / "stores", busy, shard_rows=4, batch_rows=1, workers=1)
    assert summary.bottleneck == stage


def test_receipts_record_device_versions_and_the_codecs_error(root: Path, trained: Path) -> None:
    for receipt in receipts_of(trained):
        assert receipt["provenance"]["torch"] == torch.__version__
        assert {"device", "timm", "numpy", "pillow", "libjpeg_turbo", "python"} <= receipt[
            "provenance"
        ].keys()
        assert set(receipt["errors"]) == {"p2", "p3", "p4", "p5"}
        for figures in receipt["errors"].values():
            assert 0.001 < figures["median"] < 0.02 and figures["median"] <= figures["worst"] < 0.1
    text = "".join(file.read_text() for file in trained.rglob("*.json"))
    for private in (
        str(trained.parent),
        str(root),
        os.uname().nodename,
        os.environ.get("USER", "no such user"),
    ):
        assert private not in text


def with_outliers(level: str, x: torch.Tensor) -> torch.Tensor:
    if level == "p2":
        x[:, 0, 0, 1] += 50 * x.std()
    return x


def test_the_codecs_error_warns_and_stops(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    spiky = Wrapped(backbone, with_outliers)
    with caplog.at_level(logging.WARNING):
        run(root, tmp_path / "warned", spiky, shard_rows=1)
    warnings = [record.getMessage() for record in caplog.records if "codec changes" in record.getMessage()]
    assert len(warnings) == 1 and "changes p2" in warnings[0] and "in channel 1;" in warnings[0]
    with pytest.raises(CodecError, match="channel 1;"):
        run(root, tmp_path / "stopped", spiky, shard_rows=1, codec_limit=0.02)
    assert not store_status(next((tmp_path / "stopped").iterdir())).written
    run(root, tmp_path / "within", backbone, codec_limit=0.02)
    assert receipts_of(next((tmp_path / "warned").iterdir()))[0]["errors"]["p5"]["cells"] == 4
    run(root, tmp_path / "float16", spiky, codec="float16", codec_limit=0.02)


def test_another_machine_is_warned_of(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, Stopping(backbone, tmp_path, batch=1, after_shards=1), shard_rows=2)
    monkeypatch.setattr("extract.extractor.run.provenance", lambda device, **_: {"device": "another"})
    with caplog.at_level(logging.WARNING):
        run(root, tmp_path, backbone, shard_rows=2)
    assert any("now another" in record.getMessage() for record in caplog.records)


def test_a_writer_of_another_plan_is_refused(root: Path, tmp_path: Path, backbone: FrozenBackbone) -> None:
    dataset = open_dataset("ade20k", root)
    writer = StoreWriter.open_or_create(tmp_path, planned(dataset, backbone))
    with pytest.raises(IdentityError):
        extract(dataset, planned(dataset, backbone, seed=1), backbone, writer)


def test_legal_zero_features_are_stored(root: Path, tmp_path: Path, backbone: FrozenBackbone) -> None:
    path, summary = run(root, tmp_path, Wrapped(backbone, lambda level, x: torch.zeros_like(x)))
    assert summary.rows_written == 9
    with open_store(path) as store:
        assert not any(x.any() for x in store.read_features(range(9)).values())


def test_on_a_gpu_every_batch_of_a_bin_has_one_shape(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extract.extractor.run.shape_matters", lambda device: True)
    broken = {key: (b"broken", png) for key, (_, png) in list(make_pairs(6, "validation").items())[1:4]}
    shutil.copytree(root, tmp_path / "data")
    write_split(tmp_path / "data", "validation", broken)
    shapes: dict[tuple[int, ...], list[int]] = {}

    def watch(level: str, x: torch.Tensor) -> torch.Tensor:
        if level == "p5":
            shapes.setdefault(tuple(x.shape[1:3]), []).append(len(x))
        return x

    watched = Wrapped(backbone, watch)
    path, _ = run(tmp_path / "data", tmp_path / "a", watched, split="validation", batch_rows=3, shard_rows=4)
    with open_store(path) as store:
        expected = {
            (b.height_px // 32, b.width_px // 32): b.batch_rows
            for b in store.plan.bins
            if b.name in store.bins
        }
    assert {size: set(rows) for size, rows in shapes.items()} == {s: {rows} for s, rows in expected.items()}
    assert max(rows for rows in expected.values() if rows) > 1
    monkeypatch.undo()
    alone, _ = run(tmp_path / "data", tmp_path / "b", backbone, split="validation")
    assert row_digests(path) == row_digests(alone)  # nothing slipped into another row's place


@pytest.mark.data
def test_the_real_samples(samples: Path, tmp_path: Path, backbone: FrozenBackbone) -> None:
    real = samples / "ade20k" / "ADEChallengeData2016"
    if not real.is_dir():
        pytest.skip("the samples hold no ADE20K")
    path, summary = run(real, tmp_path, backbone, views=2)
    assert (summary.rows_written, summary.skipped) == (6, [])
    path, summary = run(real, tmp_path, backbone, split="validation")
    assert (summary.rows_written, summary.skipped) == (6, [])
    dataset = open_dataset("ade20k", real, "validation")
    with open_store(path) as store:
        assert len(set(store.bins)) > 1
        for row, key in enumerate(store.keys):
            index = [record.key for record in dataset.records].index(key)
            assert np.array_equal(store.read_targets([row])[0]["original_labels"], dataset.read_truth(index))
    shutil.rmtree(path)
