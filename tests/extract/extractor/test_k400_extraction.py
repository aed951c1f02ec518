"""Kinetics extracted: each frame as the image path has it, whatever else was decoded or failed beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from extract.backbones.loading import backbone_card, load_backbone
from extract.datasets import open_dataset, view_recipe
from extract.decoding.decoder_pool import DecoderPool
from extract.extractor.batch_loader import rows_ahead
from extract.extractor.batch_order import views_at_once
from extract.extractor.memory import memory_bound
from extract.extractor.row_loader import LoadedRow, RowLoader, SkippedRow, SourceDigests
from extract.extractor.run import Summary, extract
from extract.extractor.shard_job import ShardJob, held_batches
from extract.planning.plan import build_plan, estimate_plan, needed_bytes
from extract.sources.byte_sources import SourceError, TookTooLong
from extract.views.clip_view import CLIP_PARAMS, ClipView
from stores import open_store, verify_store
from stores.codecs import codec
from stores.format.plan import StorePlan
from stores.format.row_table import UNDECODABLE
from stores.writing.writer import StoreWriter
from tests.extract.datasets.made_k400 import (
    CLASSES,
    decoded,
    made_frames,
    video_bytes,
    write_clips,
    write_folder,
)
from tests.extract.extractor.extraction import Stopping, live_levels, row_digests, skipped
from tests.extract.extractor.test_memory import Live
from tests.unfinished import receipts_of
from tests.unsynced import unsynced  # noqa: F401 - a fixture of this file

CROP_PX = 32


class Pixels:
    """A backbone whose features are some of a frame's pixels: quick, and each frame can be recognised."""

    device, precision, weights_sha256 = torch.device("cpu"), "fp32", "00" * 32

    def __init__(self) -> None:
        self.card = backbone_card("swinv2-nano", levels=("p4", "p5n"))
        self.pyramid = self.card.pyramid

    def __call__(self, pixels_NHWC: torch.Tensor, valid_hw: torch.Tensor) -> dict[str, torch.Tensor]:
        assert len(valid_hw) == len(pixels_NHWC)
        x_NCHW = pixels_NHWC.permute(0, 3, 1, 2).float()
        levels = {}
        for level in self.pyramid:
            patches = F.pixel_unshuffle(x_NCHW, level.stride_px).permute(0, 2, 3, 1)
            levels[level.name] = patches[..., :: patches.shape[-1] // level.channels].contiguous()
        return levels


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return Pixels()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), train=5, val=1)


def planned(data: Path, backbone: Any, recipe: str, **choices: Any) -> StorePlan:
    return build_plan(
        open_dataset("k400", data, "train" if recipe == "k400" else "val"),
        view_recipe("k400", recipe, crop_size=CROP_PX),
        backbone.card,
        weights_sha256=backbone.weights_sha256,
        precision=backbone.precision,
        **choices,
    )


def run(
    data: Path, stores: Path, backbone: Any, recipe: str = "k400", *, workers: int = 2, **choices: Any
) -> tuple[Path, Summary]:
    dataset = open_dataset("k400", data, "train" if recipe == "k400" else "val")
    plan = planned(data, backbone, recipe, **choices)
    writer = StoreWriter.open_or_create(stores, plan, needed_bytes=needed_bytes(plan, dataset))
    return writer.path, extract(dataset, plan, backbone, writer, workers=workers)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory, pixels: Pixels) -> Path:
    """Two views of five clips in shards of two: one holds the end of a view and the start of the next."""
    stores = tmp_path_factory.mktemp("stores")
    return run(root, stores, pixels, views=2, shard_rows=2, pixels=True)[0]


@pytest.mark.parametrize("codec_name", ["int8", "float16"])
def test_rows_are_the_image_path_on_each_exact_frame(root: Path, tmp_path: Path, codec_name: str) -> None:
    made, card = codec(codec_name), backbone_card("swinv2-nano", levels=("p4", "p5n"))
    backbone = load_backbone(card, "random:0", precision="fp32")
    path, _ = run(root, tmp_path, backbone, "single", codec=codec_name, pixels=True)
    dataset = open_dataset("k400", root, "val")
    with open_store(path) as store:
        view = dataset.media.view_from_params(store.params[0])
        assert isinstance(view, ClipView) and view.frames[:3] == (3, 7, 11)
        frames = decoded(dataset.read_source(0))
        clip = np.stack([view.apply_image(frames[number]) for number in view.frames])
        assert np.array_equal(store.read_pixels([0])[0], clip)
        found = store.read_encoded([0])
        for place, frame in enumerate(clip):
            for level, x in live_levels(backbone, frame, view.valid_hw).items():
                for name, array in made.encode(x[None]).items():
                    assert np.array_equal(found[level][name][0, place], array[0]), (place, level)
        assert store.read_targets([0])[0]["label"] == dataset.read_truth(0)
        assert store.read_features([0])["p4"].shape == (1, 16, 96, 2, 2)
    assert verify_store(path, full=True).ok


def test_every_row_holds_the_frames_that_it_names(root: Path, trained: Path, pixels: Pixels) -> None:
    dataset = open_dataset("k400", root)
    index_of = {record.key: index for index, record in enumerate(dataset.records)}
    with open_store(trained) as store:
        assert len(store) == 10
        for row in range(len(store)):
            index = index_of[store.keys[row]]
            view = dataset.media.view_from_params(store.params[row])
            assert isinstance(view, ClipView)
            frames = decoded(dataset.read_source(index))
            clip = np.stack([view.apply_image(frames[number]) for number in view.frames])
            assert np.array_equal(store.read_pixels([row])[0], clip)
            features = pixels(torch.from_numpy(clip), torch.full((16, 2), CROP_PX))
            for level, parts in store.read_encoded([row]).items():
                expected = codec("int8").encode(features[level].numpy()[None])
                assert all(np.array_equal(parts[name], expected[name]) for name in expected), (row, level)
            assert store.read_targets([row])[0]["label"] == dataset.read_truth(index)


def test_a_store_of_videos_describes_itself(trained: Path) -> None:
    with open_store(trained) as store:
        assert store.plan.frames == 16 and store.levels == ("p4", "p5n")
        assert store.identity["dataset"]["num_classes"] == len(CLASSES)
        assert store.identity["dataset"]["task"] == "video"
        assert store.identity["views"]["stride"] == 4
        assert [target.name for target in store.plan.targets] == ["label"]
    assert {receipt["provenance"]["decord"] for receipt in receipts_of(trained)} == {version("decord")}


@pytest.mark.parametrize(("workers", "shard_rows", "batch_rows"), [(1, 1, 1), (3, 4, 3), (2, 8, 2)])
def test_rows_do_not_depend_on_workers_shards_or_batches(
    root: Path,
    tmp_path: Path,
    pixels: Pixels,
    trained: Path,
    workers: int,
    shard_rows: int,
    batch_rows: int,
) -> None:
    choices = {"shard_rows": shard_rows, "batch_rows": batch_rows, "views": 2, "pixels": True}
    path, _ = run(root, tmp_path, pixels, workers=workers, **choices)
    assert row_digests(path) == row_digests(trained)


def test_rows_do_not_depend_on_other_views_or_other_clips(
    root: Path, tmp_path: Path, pixels: Pixels, trained: Path
) -> None:
    expected = row_digests(trained)
    path, _ = run(root, tmp_path / "one view", pixels, views=1, pixels=True)
    assert row_digests(path) == {row: digest for row, digest in expected.items() if row[1] == 0}
    few = tmp_path / "kinetics400"
    shutil.copytree(root, few)
    (few / "label_map_k400.txt").write_text("\n".join(CLASSES))
    lines = (few / "train.csv").read_text().splitlines()
    (few / "train.csv").write_text("\n".join([lines[0], lines[4]]))
    path, _ = run(few, tmp_path / "one clip", pixels, views=2, pixels=True)
    alone = row_digests(path)
    assert len(alone) == 2 and alone.items() <= expected.items()


def test_twelve_views_are_decoded_once(
    root: Path, tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    render = DecoderPool.render_video

    def counted(self: DecoderPool, data: bytes, hw: Any, frames: int, views: Any) -> Any:
        asked.append(len(views))
        return render(self, data, hw, frames, views)

    monkeypatch.setattr(DecoderPool, "render_video", counted)
    path, summary = run(root, tmp_path, pixels, "4x3", shard_rows=1, levels=("p5n",))
    assert summary.rows_written == 12 and asked == [12]
    with open_store(path) as store:
        assert list(store.views) == list(range(12))
        starts = [store.params[row][CLIP_PARAMS.index("frame_0")] for row in range(12)]
    assert starts == [0, 0, 0, 2, 2, 2, 4, 4, 4, 6, 6, 6]


def test_a_clip_that_is_partly_broken_loses_only_those_views(
    root: Path, tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a decoder fails on one group of pictures: rows do not depend on who was asked together."""
    plan, dataset = planned(root, pixels, "4x3"), open_dataset("k400", root, "val")
    render = DecoderPool.render_video

    def broken(self: DecoderPool, data: bytes, hw: Any, frames: int, views: Sequence[Any]) -> Any:
        if any(max(view.frames) == 66 for view in views):
            raise SourceError(1, "a frame is damaged")
        return render(self, data, hw, frames, views)

    loader = RowLoader(dataset, plan, SourceDigests())
    sound = loader.load_views(range(12))
    monkeypatch.setattr(DecoderPool, "render_video", broken)
    found = loader.load_views(range(12))
    for row, loaded in found.items():
        if isinstance(loaded, LoadedRow):
            assert np.array_equal(loaded.pixels, sound[row].pixels)  # type: ignore[union-attr]
        else:
            assert loaded.reason == "a frame is damaged"
    lost = [row for row, loaded in found.items() if not isinstance(loaded, LoadedRow)]
    assert lost == [row for row in found if plan.rows.params[row][-1] == 66]


def test_a_clip_that_takes_too_long_is_tried_once(
    root: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, tries = planned(root, pixels, "4x3"), []

    def late(*arguments: Any) -> Any:
        tries.append(arguments)
        raise TookTooLong(UNDECODABLE, "the decoder did not finish within 120 s")

    monkeypatch.setattr(DecoderPool, "render_video", late)
    found = RowLoader(open_dataset("k400", root, "val"), plan, SourceDigests()).load_views(range(12))
    assert len(tries) == 1
    reasons = [loaded.reason for loaded in found.values() if isinstance(loaded, SkippedRow)]
    assert reasons == ["the decoder did not finish within 120 s"] * 12


def test_broken_clips_are_skipped_with_their_reason(tmp_path: Path, pixels: Pixels) -> None:
    root, sound = tmp_path / "kinetics400", video_bytes(made_frames(0, 70), index_first=True)
    clips = {
        "sound": sound,
        "short": video_bytes(made_frames(1, 5)),
        "empty": b"",
        "text": b"nothing that could be a video",
        "cut": sound[: -len(sound) // 20],
    }
    write_clips(root, "train", [(name, CLASSES[0], data) for name, data in clips.items()])
    path, summary = run(root, tmp_path / "stores", pixels, views=2, shard_rows=1)
    reasons = {key.partition("_")[0]: reason for (key, _), (_, reason) in skipped(path).items()}
    assert summary.rows_written == 4 and len(summary.skipped) == 6
    assert reasons["empty"] == "an empty file"
    assert reasons["text"].startswith("not a video of a known container")
    assert reasons["cut"].startswith("PyAV finds")
    with open_store(path) as store:
        assert {key.partition("_")[0] for key in store.keys} == {"sound", "short"}
    assert verify_store(path, full=True).ok


def test_the_corrupt_real_clip_is_skipped_with_its_reason(
    samples: Path, tmp_path: Path, pixels: Pixels
) -> None:
    cases = samples / "k400" / "edge_cases"
    clips = {name: (cases / name).read_bytes() for name in ("corrupted.mp4", "video_90.mov")}
    write_clips(tmp_path, "train", [(name.partition(".")[0], "zumba", clips[name]) for name in clips])
    _, summary = run(tmp_path, tmp_path / "stores", pixels)
    assert summary.rows_written == 1
    ((key, _, reason),) = summary.skipped
    assert key.startswith("corrupted") and "Invalid data found" in reason


def test_an_estimate_has_the_plans_geometry(root: Path, pixels: Pixels) -> None:
    plan = planned(root, pixels, "4x3")
    estimate = estimate_plan(
        open_dataset("k400", root, "val"),
        view_recipe("k400", "4x3", crop_size=CROP_PX),
        pixels.card,
    )
    assert estimate.plan.bins == plan.bins and np.array_equal(estimate.plan.rows.params, plan.rows.params)
    cells = 16 * (4 * 96 + 192)
    assert sum(estimate.bytes_by_level.values()) >= 12 * cells
    row = 3 * 16 * CROP_PX**2
    bound = memory_bound(plan, workers=2)
    assert bound > 12 * 2 * row, "the views of the records that are decoded ahead"


def test_a_slow_disk_does_not_fill_the_memory_with_clips(
    root: Path, tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, load, write = Live(), RowLoader.load_views, ShardJob._write

    def watched(self: RowLoader, rows: Sequence[int]) -> Any:
        found = load(self, rows)
        for loaded in found.values():
            assert isinstance(loaded, LoadedRow)
            clips.watch(loaded.pixels, loaded.pixels.nbytes)
        return found

    def slow(self: ShardJob, *arguments: Any) -> None:
        until = time.monotonic() + 20  # as slow as it must be for clips to wait, on a busy machine too
        while clips.most < 12 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.02)
        write(self, *arguments)

    monkeypatch.setattr(RowLoader, "load_views", watched)
    monkeypatch.setattr(ShardJob, "_write", slow)
    plan = planned(root, pixels, "k400", views=6, shard_rows=1, batch_rows=1)
    run(root, tmp_path, pixels, views=6, shard_rows=1, batch_rows=1)
    assert clips.most <= rows_ahead(1, 2, views_at_once(plan)) + held_batches(plan)
    assert clips.most >= 12 and clips.most_bytes <= memory_bound(plan, 2)


def test_a_resumed_extraction_of_clips_writes_the_same_rows(
    root: Path, tmp_path: Path, pixels: Pixels, trained: Path
) -> None:
    choices = {"views": 2, "shard_rows": 2, "pixels": True}
    plan, dataset = planned(root, pixels, "k400", **choices), open_dataset("k400", root)
    writer = StoreWriter.open_or_create(tmp_path, plan, needed_bytes=0)

    with pytest.raises(KeyboardInterrupt):
        extract(dataset, plan, Stopping(pixels, tmp_path, batch=2, after_shards=2), writer)
    path, summary = run(root, tmp_path, pixels, **choices)
    assert path == writer.path and summary.shards == len(plan.shards()) - 2
    assert row_digests(path) == row_digests(trained)
