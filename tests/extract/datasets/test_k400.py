"""Kinetics-400: three layouts of the same clips, their labels, their plans, and what is refused."""

from __future__ import annotations

import logging
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from extract.datasets import DatasetLayoutError, open_dataset, view_recipe
from extract.datasets.k400 import K400
from extract.sources.byte_sources import BAD_TARGET, SourceError
from extract.sources.tar_index import HostileTarError
from tests.extract.datasets.made_ade20k import write_tar
from tests.extract.datasets.made_k400 import CLASSES, made_frames, video_bytes, write_clips, write_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


def content(dataset: K400) -> list[tuple[object, bytes, int]]:
    numbers = range(len(dataset.records))
    return [(dataset.records[n], dataset.read_source(n), dataset.read_truth(n)) for n in numbers]


def clips_of(root: Path) -> list[tuple[Path, str]]:
    return sorted((path, path.parent.name) for path in root.glob("videos/*/train*.mp4"))


def test_the_official_layout_is_read(root: Path) -> None:
    dataset = open_dataset("k400", root)
    assert (dataset.split, dataset.is_training, dataset.task) == ("train", True, "video")
    assert dataset.class_names == CLASSES
    assert [record.key for record in dataset.records] == [f"trainclip{n:03d}_000003_000013" for n in range(4)]
    assert [record.original_hw for record in dataset.records] == [(48, 64), (64, 48), (40, 72), (48, 64)]
    assert [record.frames for record in dataset.records] == [70, 71, 72, 73]
    assert [record.fps for record in dataset.records] == [25.0] * 4
    assert [dataset.read_truth(n) for n in range(4)] == [0, 1, 2, 0]
    (path, _), *_ = clips_of(root)
    assert dataset.read_source(0) == path.read_bytes()
    assert open_dataset("k400", root.parent).records == dataset.records
    assert [r.key[:3] for r in open_dataset("k400", root, "val").records] == ["val", "val"]


def test_a_list_of_files_and_tars_give_the_same_records(root: Path, tmp_path: Path) -> None:
    expected = content(open_dataset("k400", root))
    (tmp_path / "label_map_k400.txt").write_text("\n".join(CLASSES) + "\n")
    lines = [f"{path.relative_to(root / 'videos')} {CLASSES.index(name)}" for path, name in clips_of(root)]
    (tmp_path / "kinetics400_train_list_videos.txt").write_text("\n".join(lines))
    (tmp_path / "videos_train").symlink_to(root / "videos")
    assert content(open_dataset("k400", tmp_path)) == expected
    assert content(open_dataset("k400", tmp_path / "kinetics400_train_list_videos.txt")) == expected
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for path, name in clips_of(root):
        members.append((path.name, path.read_bytes()))
        label = name if len(members) % 4 == 1 else str(CLASSES.index(name))
        members.append((f"{path.stem}.{'txt' if label == name else 'cls'}", label.encode()))
    write_tar(tmp_path / "tars" / "train-000.tar", members)
    (tmp_path / "tars" / "label_map_k400.txt").write_text("\n".join(CLASSES) + "\n")
    assert content(open_dataset("k400", tmp_path / "tars")) == expected


def test_without_a_file_of_names_the_labels_of_all_lists_are_the_classes(tmp_path: Path) -> None:
    video = video_bytes(made_frames(0, 4))
    write_clips(tmp_path, "train", [("a", "zumba", video)])
    write_clips(tmp_path, "val", [("b", "archery", video)])
    train, val = (open_dataset("k400", tmp_path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("archery", "zumba")
    assert (train.read_truth(0), val.read_truth(0)) == (1, 0)
    (tmp_path / "label_map_k400.txt").write_text("zumba\n")
    with pytest.raises(SourceError) as error:
        open_dataset("k400", tmp_path, "val").read_truth(0)
    assert error.value.code == BAD_TARGET and "'archery'" in error.value.reason


def test_numbered_classes_are_those_of_all_lists(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(video_bytes(made_frames(0, 4)))
    (tmp_path / "kinetics400_train_list_videos.txt").write_text("a.mp4 1\nnobody.mp4 6\n")
    (tmp_path / "kinetics400_val_list_videos.txt").write_text("a.mp4 3\n")
    train, val = (open_dataset("k400", tmp_path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == tuple("0123456")
    (tmp_path / "kinetics400_val_list_videos.txt").write_text("a.mp4 99999999\n")
    with pytest.raises(DatasetLayoutError, match="label 99999999"):
        open_dataset("k400", tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (b"zumba,x\n", "line 2 has too few columns"),
        (b"zumba,x,one,11,train\n", "clip x from 'one' to '11', expected seconds"),
        (b"zumba,x,1,inf,train\n", "clip x from '1' to 'inf', expected seconds"),
        (b"zumba" * 40_000 + b",x,1,11,train\n", "cannot be read as a csv file"),
        (b"\xff,x,1,11,train\n", "cannot be read as a csv file"),
    ],
)
def test_a_broken_list_is_refused_with_its_name(tmp_path: Path, rows: bytes, message: str) -> None:
    write_clips(tmp_path, "train", [("x", "zumba", b"")])
    header = b"label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_bytes(header + rows)
    with pytest.raises(DatasetLayoutError) as error:
        open_dataset("k400", tmp_path)
    assert message in str(error.value) and "train.csv" in str(error.value)


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_clips(tmp_path, "train", [("x", "zumba", video_bytes(made_frames(0, 4)))])
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "train.csv").read_bytes())
    assert open_dataset("k400", tmp_path).class_names == ("zumba",)


def test_missing_clips_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_clips(tmp_path, "train", [(name, "zumba", video_bytes(made_frames(0, 4))) for name in "abc"])
    for name in "ab":
        next(tmp_path.rglob(f"{name}_*.mp4")).unlink()
    with caplog.at_level(logging.WARNING):
        assert len(open_dataset("k400", tmp_path).records) == 1
    assert "lists 3 clips, 1 of them were found" in caplog.text
    next(tmp_path.rglob("c_*.mp4")).unlink()
    with pytest.raises(DatasetLayoutError, match="none of the 3 clips"):
        open_dataset("k400", tmp_path)


def test_what_is_no_kinetics_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetLayoutError, match=r"looked for train\.csv"):
        open_dataset("k400", tmp_path)
    (tmp_path / "train.csv").write_text("label,id\n")
    with pytest.raises(DatasetLayoutError, match="time_end, time_start, youtube_id"):
        open_dataset("k400", tmp_path)
    write_tar(tmp_path / "tars" / "train.tar", [("a.mp4", b"x")])
    with pytest.raises(DatasetLayoutError, match=r"sample 'a' has mp4; looked for one video"):
        open_dataset("k400", tmp_path / "tars")


@pytest.mark.parametrize("data", ["pipe:cat clips.tar", "http://example.org/train.tar"])
def test_neither_programs_nor_addresses_are_read(data: str) -> None:
    with pytest.raises(HostileTarError, match="no URLs and no pipes"):
        open_dataset("k400", data)


def test_a_broken_video_is_listed_and_refused_when_it_is_decoded(tmp_path: Path) -> None:
    sound = video_bytes(made_frames(0, 70))
    broken = {"empty": b"", "text": b"not a video at all, but long enough", "cut": sound[:200], "a": sound}
    write_clips(tmp_path, "train", [(name, "zumba", data) for name, data in broken.items()])
    dataset, recipe = open_dataset("k400", tmp_path), view_recipe("k400", "k400", crop_size=32)
    reasons = {}
    for number, record in enumerate(dataset.records):
        view = recipe.view("k400", record, 0, 0)
        try:
            dataset.media.render(dataset.read_source(number), record, [view])
        except SourceError as error:
            reasons[record.key.partition("_")[0]] = error.reason
    assert reasons.keys() == {"empty", "text", "cut"}
    assert reasons["empty"] == "an empty file"
    assert "known container" in reasons["text"]


def test_real_clips_are_listed(samples: Path) -> None:
    train, val = (open_dataset("k400", samples / "k400", split) for split in ("train", "val"))
    assert train.num_classes == val.num_classes == 400
    assert [record.frames for record in train.records] == [300, 300, 310, 250, 280, 300]
    assert {record.decoder for record in (*train.records, *val.records)} == {"decord"}
    names = {train.class_names[train.read_truth(n)] for n in range(len(train.records))}
    assert names == {"arm wrestling", "bungee jumping", "flipping pancake", "abseiling"}


def test_a_label_is_one_number(root: Path) -> None:
    dataset = open_dataset("k400", root)
    specs = dataset.target_specs(True, [])
    assert dataset.target_specs(False, []) == specs[:1]
    view = view_recipe("k400", "single").view("k400", dataset.records[1], 0, 0)
    targets = dataset.targets(dataset.read_truth(1), view)
    for spec, name in zip(specs, ("label", "original_label"), strict=True):
        assert (spec.name, spec.dtype, spec.shape) == (name, "int64", ())
        assert targets[name].dtype == np.int64 and targets[name].shape == () and targets[name] == 1


CLIP = video_bytes(made_frames(0, 4))
HEADER = "label,youtube_id,time_start,time_end,split\n"


def written(root: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    (root / name).write_bytes(text.encode(encoding))
    return root


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_are_read_as_people_write_them(tmp_path: Path, encoding: str, line_end: str) -> None:
    """Byte order marks, line ends, blanks around and between words, tabs: the same clips and classes."""
    write_clips(tmp_path, "train", [("a", "arm wrestling", CLIP), ("b", "zumba", CLIP)])
    table = " label ,youtube_id, time_start,time_end,split\n"
    table += "arm  wrestling ,a ,3,13, train\n zumba\u00a0,b,3,13,train\n"
    written(tmp_path, "train.csv", table.replace("\n", line_end), encoding)
    from_table = open_dataset("k400", tmp_path)
    assert from_table.class_names == ("arm wrestling", "zumba")
    (tmp_path / "train.csv").unlink()
    lines = "arm wrestling/a_000003_000013.mp4 0 \nzumba/b_000003_000013.mp4\t1\n\n"
    written(tmp_path, "kinetics400_train_list_videos.txt", lines.replace("\n", line_end), encoding)
    written(tmp_path, "label_map_k400.txt", "arm wrestling \nzumba\n\n".replace("\n", line_end), encoding)
    from_list = open_dataset("k400", tmp_path)
    assert from_list.class_names == from_table.class_names
    assert [record.key for record in from_list.records] == [record.key for record in from_table.records]
    assert [each.read_truth(n) for each in (from_table, from_list) for n in range(2)] == [0, 1, 0, 1]
    keys = written(tmp_path, "keys.txt", f"{from_list.records[1].key} \n".replace("\n", line_end), encoding)
    assert open_dataset("k400", tmp_path, subset=str(keys / "keys.txt")).subset == {"b_000003_000013"}
    members = [("a.mp4", CLIP), ("a.txt", f" arm  wrestling{line_end}".encode(encoding))]
    write_tar(tmp_path / "tars" / "train.tar", members)
    assert open_dataset("k400", tmp_path / "tars").class_names == ("arm wrestling", "zumba")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.csv", f"{HEADER}zumba,a,3,13,train\ntango,a,3,13,train\n", "two labels, 'zumba' and 'tango'"),
        ("train.csv", HEADER + " ,a,3,13,train\n", "line 2 has no label"),
        ("train.csv", HEADER + "zumba,a,3,13,train\nZumba,b,3,13,train\n", "'Zumba' and 'zumba' are one"),
        ("train.csv", HEADER + "arm wrestling,a,3,13,train\narm_wrestling,b,3,13,train\n", "are one"),
        ("train.txt", "a_000003_000013.mp4 1\na_000003_000013.mp4 2\n", "has two labels, '1' and '2'"),
        ("train.txt", "a_000003_000013.mp4\n", "expected a path, a blank and a number"),
        ("label_map_k400.txt", "zumba\n\narchery\n", "line 2 is empty"),
        ("label_map_k400.txt", "zumba\narchery\nzumba\n", "'zumba' and 'zumba' are one"),
    ],
)
def test_a_list_that_would_lose_a_class_is_refused_by_name(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / "videos").mkdir()
    for clip in "ab":
        (tmp_path / "videos" / f"{clip}_000003_000013.mp4").write_bytes(CLIP)
    if name.startswith("label"):
        written(tmp_path, "train.csv", HEADER + "zumba,a,3,13,train\n")
    written(tmp_path, name, text)
    with pytest.raises(DatasetLayoutError, match=re.escape(message)) as caught:
        open_dataset("k400", tmp_path)
    assert name in str(caught.value) or "are one" in message


def test_a_clip_that_is_listed_twice_with_one_label_is_one_clip(tmp_path: Path) -> None:
    write_clips(tmp_path, "train", [("a", "zumba", CLIP)])
    written(tmp_path, "train.csv", HEADER + "zumba,a,3,13,train\nzumba ,a,3,13,train\n")
    assert len(open_dataset("k400", tmp_path).records) == 1


def test_a_list_in_another_encoding_is_named(tmp_path: Path) -> None:
    write_clips(tmp_path, "train", [("a", "zumba", CLIP)])
    written(tmp_path, "label_map_k400.txt", "zumba\ncapo\u00ebira\n", "latin-1")
    with pytest.raises(DatasetLayoutError, match=r"label_map_k400\.txt cannot be read .*save it as UTF-8"):
        open_dataset("k400", tmp_path)
    write_tar(tmp_path / "tars" / "train.tar", [("a.mp4", CLIP), ("a.txt", b"capo\xebira")])
    with pytest.raises(DatasetLayoutError, match=r"train\.tar: a\.txt is no UTF-8"):
        open_dataset("k400", tmp_path / "tars")


def test_clips_in_no_list_and_links_to_nothing_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_clips(tmp_path, "train", [("a", "zumba", CLIP), ("b", "zumba", CLIP)])
    clip = tmp_path / "videos" / "zumba" / "b_000003_000013.mp4"
    clip.rename(clip.with_name("c_000003_000013.mp4"))
    clip.symlink_to(tmp_path / "nowhere.mp4")
    with caplog.at_level(logging.WARNING):
        assert len(open_dataset("k400", tmp_path).records) == 1
    assert "lists 2 clips, 1 of them were found" in caplog.text
    assert "1 video in no list, such as c_000003_000013: left out" in caplog.text
    assert "1 name that links to nothing, such as b_000003_000013" in caplog.text
