"""HTC with its semantic branch: from COCO's stuff maps to scores."""

from pathlib import Path

import numpy as np
import pytest

from extract.datasets import dataset_module
from pipelines.__main__ import main
from stores import open_store
from tests.extract.datasets.test_stuff_maps import write_panoptic, write_pixel_maps
from tests.pipelines.verbs.test_own_data import result

NARROW = (
    " ".join(f"--head-settings.{name} 16" for name in ("width", "box_width", "mask_width"))
    + " --head-settings.neck_depth 1"
)


@pytest.mark.ci
def test_htc_learns_from_stuff_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_module("coco").write_sample(tmp_path / "coco", 2, np.random.default_rng(0))
    maps = write_pixel_maps(tmp_path / "coco")
    write_panoptic(tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    extract = "extract --dataset coco --data coco --model swinv2-nano --weights random:0 --device cpu"
    train = "train-head --head htc-bifpn5 --device cpu --batch-size 2 --max-steps 1 --val-every 0"
    assert result(capsys, f"{extract} --crop-size 64 --stores plain")[0] == 0
    code, summary, _ = result(capsys, f"{train} --stores plain")
    assert (
        code == 2
        and "extract COCO with --stuff stuffthingmaps or --stuff panoptic, or use htc-nosem-bifpn5"
        in (summary["error"])
    )
    identities = set()
    for kind in ("stuffthingmaps", "panoptic"):
        code, first, _ = result(capsys, f"{extract} --crop-size 64 --stores {kind} --stuff {kind}")
        assert code == 0
        with open_store(first["store"]) as store:
            identities.add(store.identity["dataset"]["stuff"])
            stuff = store.read_targets([0], ("stuff",))[0]["stuff"]
        assert stuff.shape == (64, 64) and set(np.unique(stuff)) <= {0, 1, 2, 91, 181, 255}
        code, summary, _ = result(capsys, f"{train} {NARROW} --stores {kind} --run runs/{kind}")
        assert code == 0 and np.isfinite(summary["loss"])
        assert main(["verify", "--store", first["store"], "--full", "--source", "--data", "coco"]) == 0
        capsys.readouterr()
    assert identities == {"stuffthingmaps", "panoptic"} and len(maps) == 2
    assert result(capsys, f"{extract} --split val2017 --short-side 64 --stores panoptic")[0] == 0
    code, summary, text = result(capsys, "evaluate --run runs/panoptic")
    assert code == 0 and text.startswith("box AP ")
    code, summary, _ = result(capsys, f"{extract} --split val2017 --stores panoptic --stuff panoptic")
    assert code == 2 and "val2017 is a test split" in summary["error"]


@pytest.mark.ci
def test_htc_learns_from_stuff_maps_online(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_module("coco").write_sample(tmp_path / "coco", 2, np.random.default_rng(0))
    write_pixel_maps(tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    online = (
        "train-head --online --dataset coco --data coco --model swinv2-nano --weights random:0 --crop-size 64"
    )
    train = f"{online} --head htc-bifpn5 --device cpu --batch-size 2 --max-steps 1 --val-every 0 {NARROW}"
    code, summary, _ = result(capsys, f"{train} --run runs/a")
    assert code == 2 and "extract COCO with --stuff" in summary["error"]
    code, summary, _ = result(capsys, f"{train} --run runs/a --stuff stuffthingmaps")
    assert code == 0 and np.isfinite(summary["loss"])
