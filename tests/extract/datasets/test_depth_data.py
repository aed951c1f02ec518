"""Depth data: the labelled .mat file, lists, own maps; a replayed view moves pixels and depth alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from extract.datasets import DatasetLayoutError, open_dataset
from extract.datasets.depth_data.depth_maps import decode_depth
from extract.datasets.depth_data.samples import depth_bytes
from extract.datasets.own.describing.describe_folder import describe_folder, description_text
from extract.sources.byte_sources import SourceError, decode_image
from extract.sources.record import Record
from extract.views.depth.recipes import DepthCrops, SlideFlip, WholePart
from extract.views.view import View


def write_mat(folder: Path, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """NYU's two files in small, as MATLAB lays them out. Returns images (N, H, W, 3) and metres (N, H, W)."""
    h5py = pytest.importorskip("h5py")
    from scipy.io import savemat

    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (count, 12, 15, 3), dtype=np.uint8)
    metres = draws.uniform(0.7, 9.9, (count, 12, 15)).astype(np.float32)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = metres.transpose(0, 2, 1)
    savemat(folder / "splits.mat", {"trainNdxs": [[1], [3], [4]], "testNdxs": [[2], [5]]})
    return images, metres


def test_the_labelled_mat_file(tmp_path: Path) -> None:
    images, metres = write_mat(tmp_path)
    for where in (tmp_path, tmp_path / "nyu_depth_v2_labeled.mat"):
        train, test = (open_dataset("nyudepthv2", where, split) for split in ("train", "test"))
        assert [record.key for record in train.records] == ["0001", "0003", "0004"]
        assert [record.original_hw for record in test.records] == [(12, 15)] * 2
    for index, number in enumerate((1, 4)):
        data = test.read_source(index)
        assert len(data) == test.records[index].source_bytes
        assert np.array_equal(decode_image(data), images[number])
        assert np.array_equal(test.read_truth(index), np.rint(metres[number].astype(float) * 1000))
    assert len(test.annotation_digest) == 64
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(DatasetLayoutError, match=r"splits\.mat is missing"):
        open_dataset("nyudepthv2", tmp_path, "test")


def test_a_mat_file_of_something_else(tmp_path: Path) -> None:
    write_mat(tmp_path)
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DatasetLayoutError, match="cannot be read"):
        open_dataset("nyudepthv2", tmp_path, "test")


def test_lists_of_kitti(tmp_path: Path) -> None:
    for drive in ("a", "b"):
        for root, ending in (("raw", "png"), ("data_depth_annotated/val", "png")):
            (tmp_path / root / drive).mkdir(parents=True)
            pixels = (
                np.full((40, 60, 3), 9, np.uint8) if root == "raw" else np.full((40, 60), 2560, np.uint16)
            )
            Image.fromarray(pixels).save(tmp_path / root / drive / f"1.{ending}")
    lines = ["a/1.png a/1.png 721.5377", "b/1.png None 721.5377", "b/2.png b/1.png 721.5377"]
    (tmp_path / "eigen_test_files_with_gt.txt").write_text("\n".join(lines))
    test = open_dataset("kitti_depth", tmp_path, "test")
    assert [record.key for record in test.records] == ["a/1", "b/2"]
    assert test.unusable_records == {"b/2": "its image is missing"}
    assert test.read_truth(0).max() == 2560 and test.task_facts["units_per_m"] == 256
    (tmp_path / "eigen_test_files_with_gt.txt").write_text("../a.png b.png")
    with pytest.raises(DatasetLayoutError, match=r"line 1: '\.\./a\.png', expected a path below"):
        open_dataset("kitti_depth", tmp_path, "test")
    with pytest.raises(DatasetLayoutError, match=r"looked for the list train_list\.txt"):
        open_dataset("kitti_depth", tmp_path, "train")


def test_folders_of_nyu_without_a_list(tmp_path: Path) -> None:
    scene = tmp_path / "nyu_depth_v2" / "sync" / "kitchen_0028b"
    scene.mkdir(parents=True)
    for number in (1, 2):
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(scene / f"rgb_{number:05d}.jpg")
    (scene / "sync_depth_00001.png").write_bytes(depth_bytes(np.full((8, 9), 1234, np.uint16)))
    train = open_dataset("nyudepthv2", tmp_path, "train")
    assert [record.key for record in train.records] == ["kitchen_0028b/rgb_00001", "kitchen_0028b/rgb_00002"]
    assert train.read_truth(0).max() == 1234 and len(train.unusable_records) == 1


def test_depth_maps_in_other_forms() -> None:
    file = io.BytesIO()
    np.save(file, np.array([[0.0, np.nan, 1.5, 1e-6, -2.0]], np.float32))
    found = decode_depth(file.getvalue(), (1, 5), units_per_m=256, invalid=0)
    assert found.tolist() == [[0, 0, 384, 1, 0]] and found.dtype == np.uint16
    for data, reason in (
        (file.getvalue()[:90], "cannot be read"),
        (depth_bytes(np.zeros((2, 5), np.uint16)), r"5x2 pixels, its image has 5x1"),
        (b"nothing", "not an image"),
    ):
        with pytest.raises(SourceError, match=reason):
            decode_depth(data, (1, 5), units_per_m=256, invalid=0)
    far = io.BytesIO()
    np.save(far, np.full((1, 5), 300.0))
    with pytest.raises(SourceError, match="holds 76800 to 76800, expected 0 to 65535"):
        decode_depth(far.getvalue(), (1, 5), units_per_m=256, invalid=0)


@settings(max_examples=60, deadline=None)
@given(
    hw=st.tuples(st.integers(20, 120), st.integers(20, 160)),
    kind=st.sampled_from(["crops", "part", "whole", "slide"]),
    index=st.integers(0, 30),
    seed=st.integers(0, 5),
)
def test_a_replayed_view_moves_pixels_and_depth_alike(
    hw: tuple[int, int], kind: str, index: int, seed: int
) -> None:
    """Every pixel of the image names its place, as its depth does: both are at one place of the view."""
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    depth = (1 + 200 * rows + columns).astype(np.uint16)
    record = Record("k", 1, hw)
    part = (32, 64) if kind == "part" else None
    if kind == "slide":
        slide = SlideFlip(name="s")
        view = slide.view("d", record, index % slide.views_of(record), seed)
    elif kind == "whole":
        view = WholePart(name="s").view("d", record, 0, seed)
    else:
        view = DepthCrops(name="c", crop_px=64, part_hw=part).view("d", record, index, seed)
    view = View.from_params([*view.to_params()[:9], 0.0, 1.0, 0.0, 1.0, 0.0])  # without colours
    pixels, moved = view.apply_image(image), view.apply_map(depth, 0)
    assert moved.dtype == np.uint16 and moved.shape == view.padded_hw == pixels.shape[:2]
    inside = np.zeros(view.padded_hw, bool)
    inside[: view.valid_hw[0], : view.valid_hw[1]] = True
    assert (moved[~inside] == 0).all()
    expected = 1 + 200 * pixels[..., 0].astype(int) + pixels[..., 1]
    assert np.array_equal(moved[inside], expected[inside])


def test_describe_finds_folders_of_depth(tmp_path: Path) -> None:
    data = tmp_path / "rooms"
    for split in ("train", "test"):
        for kind in ("images", "depth"):
            (data / kind / split).mkdir(parents=True)
        for number in range(2):
            ramp = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) + 500
            (data / "depth" / split / f"{number}.png").write_bytes(depth_bytes(ramp))
            Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(data / "images" / split / f"{number}.jpg")
    draft = describe_folder(data)
    assert draft.layout == "depth" and draft.training == ["train"]
    assert draft.options == {"scale": 1000, "invalid": 0, "max_depth": 3.0}
    out = tmp_path / "rooms.yaml"
    out.write_text(description_text(draft, data, out))
    test = open_dataset(str(out), None, "test")
    assert test.task == "depth" and test.num_classes == 0 and test.read_truth(1).max() == 2499
    out.write_text(out.read_text().replace("max_depth: 3.0", "max_depth: 300"))
    with pytest.raises(DatasetLayoutError, match=r"rooms\.yaml: scale 1000 and max_depth 300"):
        open_dataset(str(out), None, "test")
    out.write_text(out.read_text().replace("max_depth: 300", "classes: [wall]"))
    with pytest.raises(DatasetLayoutError, match="layout depth has none"):
        open_dataset(str(out), None, "test")
