"""ImageNet-1K in its official layouts: labels by sorted WordNet ids, whatever the files number them by."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from extract.datasets import open_dataset
from extract.datasets.layouts.synsets import imagenet_synsets, short_names
from extract.sources.record import DatasetLayoutError
from tests.extract.datasets.made_photos import write_photo, write_tars

TENCH, GOLDFISH = imagenet_synsets()[:2]


def labels(data: Path, split: str) -> dict[str, int]:
    dataset = open_dataset("in1k", data, split)
    return {record.key: dataset.read_truth(i) for i, record in enumerate(dataset.records)}


def test_a_thousand_names_in_order() -> None:
    names = short_names(imagenet_synsets())
    assert names is not None and len(set(names)) == 1000 == len(imagenet_synsets())
    assert names[:2] == ["tench", "goldfish"] and names[-1] == "toilet tissue"
    assert list(imagenet_synsets()) == sorted(imagenet_synsets())


@pytest.mark.parametrize("place", ["", "imagenet", "ILSVRC/Data/CLS-LOC"])
def test_class_folders(place: str, tmp_path: Path) -> None:
    write_photo(tmp_path / place / "train" / GOLDFISH / f"{GOLDFISH}_7.JPEG", 0)
    assert labels(tmp_path, "train") == {f"{GOLDFISH}/{GOLDFISH}_7": 1}
    write_photo(tmp_path / place / "train/dogs/a.JPEG", 0)
    with pytest.raises(DatasetLayoutError, match=r"train/dogs is none of ImageNet-1K's 1000 .*describe"):
        open_dataset("in1k", tmp_path, "train")


def test_validation_without_class_folders(tmp_path: Path) -> None:
    for number in (1, 2):
        write_photo(tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG", number)
    with pytest.raises(DatasetLayoutError, match="their labels were not found: looked for LOC_val_solution"):
        open_dataset("in1k", tmp_path, "val")
    # The devkit numbers its classes in an order of its own.
    meta = [{"ILSVRC2012_ID": 30, "WNID": TENCH}, {"ILSVRC2012_ID": 4, "WNID": GOLDFISH}]
    columns = {name: np.array([row[name] for row in meta], dtype=object) for name in meta[0]}
    table = np.rec.fromarrays(list(columns.values()), names=list(columns))
    (tmp_path / "ILSVRC2012_devkit_t12/data").mkdir(parents=True)
    savemat(tmp_path / "ILSVRC2012_devkit_t12/data/meta.mat", {"synsets": table})
    truth = tmp_path / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("4\n30\n")
    assert list(labels(tmp_path, "val").values()) == [1, 0]
    truth.write_text("4\n")
    with pytest.raises(DatasetLayoutError, match="labels 1 photographs, the folder holds 2"):
        open_dataset("in1k", tmp_path, "val")
    (tmp_path / "LOC_val_solution.csv").write_text(
        f"ImageId,PredictionString\nILSVRC2012_val_00000002,{GOLDFISH} 1 2 3 4\n"
        f"ILSVRC2012_val_00000001,{TENCH} 1 2 3 4 {TENCH} 5 6 7 8\n"
    )
    assert list(labels(tmp_path, "val").values()) == [0, 1]


def test_tars(tmp_path: Path) -> None:
    write_tars(tmp_path, {"train": 4})
    assert list(labels(tmp_path, "train").values()) == [0, 1, 0, 1]
