"""Mask2Former learns four real images of ADE20K by heart, from a store of a backbone that knows nothing.

Enough to show that targets, points, matching and prediction belong together: a mistake in any of them (labels
off by one, x and y swapped, a wrong crop) leaves it far below. Figures in docs/ade20k.md.
"""

import shutil
from pathlib import Path

import pytest
import torch

from heads import build_head
from pipelines.config import ExtractConfig
from pipelines.verbs import extract_features
from stores.reading.reader import open_store

STEPS = 200
IMAGES = ("training/ADE_train_00009317", "training/ADE_train_00016869", "training/ADE_train_00016900")
FOURTH = "validation/ADE_val_00000001"


@pytest.mark.ci
@pytest.mark.data
def test_four_real_images(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(extract_four(samples / "ade20k" / "ADEChallengeData2016", tmp_path)) as store:
        rows = list(range(len(store)))
        features = {level: torch.from_numpy(x) for level, x in store.read_features(rows).items()}
        targets = [{"labels": torch.from_numpy(each["labels"].copy())} for each in store.read_targets(rows)]
        valid_hw = [(int(height), int(width)) for height, width in store.valid_hw]
        pyramid = store.pyramid
    assert len(rows) == 4
    settings = {"width": 128, "points": 1024}
    head = build_head("m2f-pd1-td3", "segmentation", pyramid, 150, seed=0, **settings)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.02)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / STEPS) ** 0.9
        losses = head.losses(features, targets, valid_hw, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    right = seen = 0
    for scores_KYX, target, (height, width) in zip(
        head.eval().predict(features, valid_hw, valid_hw), targets, valid_hw, strict=True
    ):
        labels_YX = target["labels"][:height, :width]
        right += int((scores_KYX.argmax(0) == labels_YX).sum())
        seen += int((labels_YX != 255).sum())
    with capsys.disabled():
        print(f"\nm2f-pd1-td3 on four images after {STEPS} steps: pixel accuracy {right / seen:.4f}")
    assert right / seen >= 0.95


def extract_four(data: Path, folder: Path) -> Path:
    """A store of one training view of each image, 256 px; the backbone's weights are drawn."""
    four = folder / "ADEChallengeData2016"
    for kind, ending in (("images", "jpg"), ("annotations", "png")):
        for split in ("training", "validation"):
            (four / kind / split).mkdir(parents=True)
        for name in (*IMAGES, FOURTH):
            copied = f"training/{Path(name).name.replace('val', 'train')}.{ending}"
            shutil.copy(data / kind / f"{name}.{ending}", four / kind / copied)
    config = ExtractConfig(
        dataset="ade20k",
        split="training",
        data=str(four),
        model="swinv2-nano",
        weights="random:0",
        stores=str(folder / "stores"),
        crop_size=256,
        device="cpu",
    )
    return Path(extract_features.run(config)["store"])
