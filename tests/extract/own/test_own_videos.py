"""Own videos: class folders, and lists as Kinetics, Something-Something and mmaction have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extract.datasets import DatasetLayoutError, open_dataset
from extract.datasets.own.describing.describe_folder import describe_folder, description_text
from tests.extract.datasets.made_k400 import made_frames, video_bytes

CLIP = video_bytes(made_frames(0, 4))
FOLDERS = (
    "name: acts\nlayout: videofolder\ndata: data\nsplits:\n  train: {videos: train}\n  val: {videos: val}\n"
)
LISTS = "name: acts\nlayout: videolist\ndata: data\nsplits:\n  train: {list: %s, videos: clips}\n"


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CLIP)


def described(tmp_path: Path, text: str) -> str:
    (tmp_path / "acts.yaml").write_text(text)
    return str(tmp_path / "acts.yaml")


def labels(dataset: object) -> dict[str, str]:
    """Names of classes by key."""
    return {
        record.key: dataset.class_names[dataset.read_truth(index)]  # type: ignore[attr-defined]
        for index, record in enumerate(dataset.records)  # type: ignore[attr-defined]
    }


def test_class_folders_of_both_splits_make_the_classes(tmp_path: Path) -> None:
    for path in (
        "train/wave/a.mp4",
        "train/clap/day/b.avi",
        "val/jump/c.mkv",
        "val/clap/d.mp4",
        "train/notes.txt",
    ):
        write(tmp_path / "data" / path)
    name = described(tmp_path, FOLDERS)
    train = open_dataset(name)
    assert train.class_names == ("clap", "jump", "wave") == open_dataset(name, split="val").class_names
    assert labels(train) == {"clap/day/b": "clap", "wave/a": "wave"}
    renamed = described(tmp_path, FOLDERS + "classes: {clap: clapping, wave: waving}\nleave_out: [jump]\n")
    assert labels(open_dataset(renamed)) == {"clap/day/b": "clapping", "wave/a": "waving"}
    with pytest.raises(DatasetLayoutError, match="folder 'wave' holds videos and is none of the 1 `classes`"):
        open_dataset(described(tmp_path, FOLDERS + "classes: [clap]\n"))


@pytest.mark.parametrize(
    ("list_name", "text", "more"),
    [
        ("k.csv", "label,youtube_id,time_start,time_end,split\nwave,a1,3,13,train\nclap,b2,0,10,train\n",
         "file: '{youtube_id}_{time_start:06d}_{time_end:06d}'\n"),
        ("m.txt", "wave/a1_000003_000013.mp4 1\nclap/b2_000000_000010.mp4 0\n", "classes: [clap, wave]\n"),
        ("c.csv", "clip,act\na1_000003_000013,wave\nb2_000000_000010.mp4,clap\n",
         "file: '{clip}'\nlabel: act\n"),
        ("n.csv", "a1_000003_000013.mp4,wave\nb2_000000_000010.mp4,clap\n", ""),
        ("s.json", json.dumps([{"id": "a1_000003_000013", "template": "wave"},
                               {"id": "b2_000000_000010", "template": "[clap]"}]), "names: names.json\n"),
    ],
)  # fmt: skip
def test_lists_of_every_kind(list_name: str, text: str, more: str, tmp_path: Path) -> None:
    write(tmp_path / "data/clips/wave/a1_000003_000013.mp4")
    write(tmp_path / "data/clips/clap/b2_000000_000010.mp4")
    (tmp_path / "data" / list_name).write_text(text)
    (tmp_path / "data" / "names.json").write_text('{"wave": "1", "clap": "0"}')
    dataset = open_dataset(described(tmp_path, LISTS % list_name + more))
    assert dataset.class_names == ("clap", "wave")
    assert labels(dataset) == {"clap/b2_000000_000010": "clap", "wave/a1_000003_000013": "wave"}


def test_videos_that_can_no_longer_be_had_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "data/clips/a.mp4")
    (tmp_path / "data" / "l.csv").write_text("path,label\na.mp4,wave\nb.mp4,clap\n")
    dataset = open_dataset(described(tmp_path, LISTS % "l.csv"))
    assert labels(dataset) == {"a": "wave"} and dataset.class_names == ("clap", "wave")
    assert "l.csv lists 1 video that no folder has, such as b.mp4: left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (
            "path,label\nb.mp4,clap\nc.mp4,wave\n",
            "",
            r"looked for the 2 videos that l\.csv lists, such as b\.mp4, in ",
        ),
        ("path,label\na.mp4,clap\n", "", "acts has 1 of 2 or more classes: clap"),
        ("path,label\na.mp4,clap\na.mp4,wave\n", "", "line 3: clip a has two labels, 'clap' and 'wave'"),
        ("label,colour\nclap,red\n", "", r"has the columns label, colour: none of them names the videos"),
        (
            "path,label\na.mp4,clap\n",
            "file: '{clip}'\n",
            r"file '\{clip\}' cannot be filled: KeyError 'clip'",
        ),
        ("path,label\na.mp4,clap\n", "file: '{path.__class__}'\n", "cannot be filled: KeyError"),
        ("lonely\n", "", "line 1: 'lonely', expected a path and a label"),
    ],
)
def test_lists_that_cannot_be_used(text: str, more: str, says: str, tmp_path: Path) -> None:
    write(tmp_path / "data/clips/a.mp4")
    (tmp_path / "data" / "l.csv").write_text(text)
    with pytest.raises(DatasetLayoutError, match=says):
        open_dataset(described(tmp_path, LISTS % "l.csv" + more))


def test_a_folder_of_another_layout_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    with pytest.raises(
        DatasetLayoutError, match=r"looked for train/<class>/\*\.mp4 .*does not exist; own data"
    ):
        open_dataset(described(tmp_path, FOLDERS))
    with pytest.raises(DatasetLayoutError, match=r"looked for the list .*nowhere\.csv: .*describe FOLDER"):
        open_dataset(described(tmp_path, LISTS % "nowhere.csv"))


def test_class_folders_of_videos_are_recognised(tmp_path: Path) -> None:
    for path in (
        "train/wave/a.mp4",
        "train/clap/b.mp4",
        "train/clap/c.mp4",
        "val/wave/d.mp4",
        "val/clap/e.mp4",
    ):
        write(tmp_path / "acts" / path)
    draft = describe_folder(tmp_path / "acts")
    assert draft.layout == "videofolder" and draft.training == ["train"] and not draft.open and not draft.odd
    assert draft.splits == {"train": {"videos": ["train"]}, "val": {"videos": ["val"]}}
    out = tmp_path / "my.yaml"
    out.write_text(description_text(draft, tmp_path / "acts", out))
    assert "clap: clap  # 2 in train, 1 in val" in out.read_text()
    assert labels(open_dataset(str(out))) == {"clap/b": "clap", "clap/c": "clap", "wave/a": "wave"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("{}.csv", "label,youtube_id,time_start,time_end,split\nwave,a1,3,13,x\nclap,b2,0,10,x\n"),
        ("acts_{}_list_videos.txt", "wave/a1_000003_000013.mp4 1\nclap/b2_000000_000010.mp4 0\n"),
        ("{}.json", json.dumps([{"id": "a1_000003_000013", "label": "x", "template": "w [a]"},
                                {"id": "b2_000000_000010", "label": "y", "template": "c [b]"}])),
    ],
)  # fmt: skip
def test_lists_of_videos_are_recognised(name: str, text: str, tmp_path: Path) -> None:
    data = tmp_path / "acts"
    write(data / "videos/wave/a1_000003_000013.mp4")
    write(data / "videos/clap/b2_000000_000010.mp4")
    for split in ("train", "val"):
        (data / name.format(split)).write_text(text)
    draft = describe_folder(data)
    assert draft.layout == "videolist" and set(draft.splits) == {"train", "val"}
    assert draft.splits["train"] == {"list": [name.format("train")], "videos": ["videos"]}
    out = tmp_path / "my.yaml"
    out.write_text(description_text(draft, data, out))
    assert len(open_dataset(str(out)).records) == 2
