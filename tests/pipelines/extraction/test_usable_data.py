"""What cannot be used of a data set: reported by every verb, refused above the limits before the backbone."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config import EvaluateConfig, TrainConfig
from pipelines.verbs import evaluate, train_head
from stores import open_store
from tests.extract.datasets.made_ade20k import write_folder
from tests.extract.datasets.made_coco import made_split, write_split
from tests.pipelines.extraction.verb import result

NANO = "--model swinv2-nano --weights random:0 --device cpu --workers 1 --crop-size 64"


def ade20k(tmp_path: Path, records: int = 6) -> tuple[Path, list[str]]:
    root = write_folder(tmp_path, training=records, validation=1)
    words = f"--dataset ade20k --data {root} --stores {tmp_path / 'features'} --levels p5 {NANO}"
    return root, shlex.split(words)


def coco(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], split: str = "train2017", records: int = 6
) -> list[str]:
    whole, files = made_split(split, records)
    edit(whole)
    write_split(tmp_path / "coco", split, whole, files)
    words = (
        f"--dataset coco --data {tmp_path / 'coco'} --split {split} --stores {tmp_path / 'features'} {NANO}"
    )
    return shlex.split(words if split == "train2017" else words.replace("--crop-size", "--short-side"))


def test_orphans_are_skipped_rows_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = ade20k(tmp_path)
    names = sorted(path.stem for path in (root / "images" / "training").iterdir())
    (root / "annotations" / "training" / f"{names[0]}.png").unlink()
    (root / "images" / "training" / f"{names[1]}.jpg").unlink()
    code, summary, out, _ = result(capsys, "extract", *words)
    assert (code, summary["records"], summary["rows_written"]) == (0, 6, 4)
    reasons = {names[0]: "its label map is missing", names[1]: "its image is missing"}
    assert {each["key"]: each["reason"] for each in summary["skipped"]} == reasons
    assert summary["unusable_records"] == reasons
    assert "  unusable  2 records will be skipped: " in out
    _, status, _, _ = result(capsys, "status", "--store", summary["store"])
    assert {each["key"]: each["reason"] for each in status["stores"][0]["skipped"]} == reasons


@pytest.mark.parametrize("verb", ["plan", "extract"])
def test_more_orphans_than_may_be_skipped_are_refused_first(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = ade20k(tmp_path)
    for path in sorted((root / "images" / "training").iterdir())[:2]:
        path.unlink()
    monkeypatch.setattr("pipelines.engines.one_process.load_backbone", None)  # it is not come to
    code, summary, _, err = result(capsys, verb, *words, "--max-failed", "1")
    assert code == 1 and not (tmp_path / "features").exists()
    message = "2 of 6 records cannot be used, at most 1 may be skipped (--max-failed)"
    assert message in err and message in summary["error"]


def spoilt(root: Path, change: Callable[[np.ndarray], np.ndarray], count: int) -> None:
    for path in sorted((root / "annotations" / "training").iterdir())[:count]:
        Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)


def in_colours(labels: np.ndarray) -> np.ndarray:
    return np.repeat(labels[..., None], 3, axis=2)


def with_ignored_border(labels: np.ndarray) -> np.ndarray:
    labels[:2] = 255
    return labels


@pytest.mark.parametrize(
    ("change", "message"),
    [(in_colours, "PNG colour type 2"), (with_ignored_border, "label 255, expected 0 to 150")],
)
@pytest.mark.parametrize("records", [4, 40])
def test_label_maps_of_another_kind_are_refused_before_the_first_record(
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
    records: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, words = ade20k(tmp_path, records)
    spoilt(root, change, records)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 1 and not (tmp_path / "features").exists()
    assert f"{min(32, records)} of {min(32, records)} sampled label maps cannot be used" in err
    assert message in err and "own data: `describe FOLDER --out my.yaml` writes a description" in err


def test_a_single_bad_label_map_is_a_skipped_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, words = ade20k(tmp_path)
    spoilt(root, in_colours, 1)
    code, summary, _, _ = result(capsys, "extract", *words)
    assert (code, summary["rows_written"], len(summary["skipped"])) == (0, 5, 1)


def test_plan_says_which_labels_occur(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A street whose classes count from 0 looks like floors and ceilings, and loses its first class."""
    root, words = ade20k(tmp_path)

    def street(labels: np.ndarray) -> np.ndarray:
        labels[:], labels[:10], labels[10:20] = 0, 4, 6
        return labels

    spoilt(root, street, 6)
    code, summary, out, _ = result(capsys, "plan", *words)
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("  labels"))
    assert "2 of 150 classes in 6 of 6 label maps: floor " in line and "ceiling " in line
    share = summary["labels"]["unlabelled_pixels"] / (
        summary["labels"]["unlabelled_pixels"] + sum(summary["labels"]["pixels_by_class"].values())
    )
    assert f"{share:.0%} of the pixels have no label" in line and share > 0.4
    assert set(summary["labels"]["pixels_by_class"]) == {"floor", "ceiling"}


def without_masks_in(count: int) -> Callable[[dict[str, Any]], object]:
    return lambda whole: [each.update(segmentation=[]) for each in whole["annotations"][:count]]


def test_the_share_of_unusable_annotations_is_in_every_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = coco(tmp_path, without_masks_in(3))
    code, summary, out, _ = result(capsys, "extract", *words, "--levels", "p5")
    found = summary["unusable_annotations"]
    total = found["of"]
    assert code == 0 and (found["count"], found["share"]) == (3, 3 / total)
    assert found["reasons"] == {"no segmentation": 3}
    line = f"3 of {total} annotations ({3 / total:.2%})"
    assert caplog.text.count("cannot be used") == 1, "one warning in all"
    assert f"  unusable  {line}" in out
    with open_store(summary["store"]) as store:
        assert store.identity["dataset"]["unusable_annotations"] == {"count": 3, "of": total}
    for verb in ("status", "info"):
        _, found, out, _ = result(capsys, verb, "--store", summary["store"])
        assert found["stores"][0]["unusable_annotations"] == {"count": 3, "of": total}
        assert f"{line} cannot be used and were left out" in out


def test_too_large_a_share_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = coco(tmp_path, without_masks_in(9), records=6)
    code, _, _, err = result(capsys, "extract", *words)
    assert code == 1 and "at most 5% may be left out (--max-unusable)" in err
    assert not (tmp_path / "features").exists()
    code, summary, _, _ = result(capsys, "extract", *words, "--max-unusable", "0.9", "--levels", "p5")
    assert code == 0 and summary["unusable_annotations"]["count"] == 9
    code, _, _, err = result(capsys, "extract", *words, "--max-unusable", "90")
    assert code == 2 and "max_unusable 90: expected a share from 0 to 1" in err


def test_stores_without_anything_unusable_say_nothing_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, summary, out, _ = result(capsys, "extract", *coco(tmp_path, lambda whole: None), "--levels", "p5")
    assert "  unusable" not in out and summary["unusable_annotations"] is None
    with open_store(summary["store"]) as store:
        assert not {"unusable_annotations", "boxes_only"} & set(store.identity["dataset"])


def test_boxes_alone_are_extracted_learnt_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The mask branch is off by itself, said once; AP is of boxes only."""
    edit = without_masks_in(1000)
    _, train, _, _ = result(capsys, "extract", *coco(tmp_path, edit))
    result(capsys, "extract", *coco(tmp_path, edit, "val2017", records=2))
    with open_store(train["store"]) as store:
        assert store.identity["dataset"]["boxes_only"] is True
        assert not any(name.startswith("mask") for name in store.targets)
    small = {"width": 16, "box_width": 32, "roi_samples": 16, "candidates": 30, "proposals": 15}
    small |= {"test_candidates": 30, "test_proposals": 15, "anchor_scale": 4.0, "score_threshold": 0.01}
    run = str(tmp_path / "run")
    with caplog.at_level("WARNING"):
        train_head.run(
            TrainConfig(
                head="fpn",
                head_settings=small,
                stores=str(tmp_path / "features"),
                run=run,
                max_steps=1,
                batch_size=2,
                device="cpu",
            )
        )
    assert caplog.text.count("fpn: the data has boxes and no masks: the mask branch is off") == 1
    capsys.readouterr()
    found = evaluate.run(EvaluateConfig(run=run, device="cpu"))
    assert found["mask"] is None and set(found["scores"]) == {"box AP", "box AP50"}
    assert ", no masks, 2 records" in capsys.readouterr().out
    names = {path.name.partition(".")[0] for path in Path(run).rglob("results-*")}
    assert names == {"results-bbox"} or all("segm" not in name for name in names)
