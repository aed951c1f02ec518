r"""The extraction script that people write: DataLoader, timm and one way of storing.

    python -m benchmarks.against.rival STORE --photographs FOLDER --out FOLDER [--count 200] [--batch 4] \
        [--channels-last] [--dtype int8|float16] [--fsync] [--model ID] [--size 256]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.against.stores import STORES, sync_tree

LOADER_WORKERS = 2


class Photographs(Dataset[Tensor]):
    """The first photographs of a folder, as random crops, normalised: float32 (3, size, size)."""

    def __init__(self, folder: Path, count: int, size: int) -> None:
        self.paths = sorted(folder.rglob("*.jpg"))[:count]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            view: Tensor = self.transform(image.convert("RGB"))
        return view


def int8(x_NHWC: Tensor) -> dict[str, Tensor]:
    """Symmetric, a scale a row and channel, as the store's own codec."""
    scale = x_NHWC.abs().amax((1, 2)) / 127
    return {"q": (x_NHWC / scale.clamp(min=1e-12)[:, None, None]).round().to(torch.int8), "scale": scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store", choices=STORES)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--dtype", choices=("int8", "float16"), default="float16")
    parser.add_argument("--fsync", action="store_true", help="every file and folder, at the end")
    parser.add_argument("--model", default="swinv2_tiny_window8_256")
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    model = timm.create_model(options.model, features_only=True, img_size=options.size).eval()
    photographs = Photographs(options.photographs, options.count, options.size)
    loader = DataLoader(photographs, options.batch, num_workers=LOADER_WORKERS)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    options.out.mkdir(parents=True, exist_ok=True)
    store: Any = STORES[options.store](options.out, len(photographs))
    row = 0
    with torch.inference_mode():
        for batch in loader:
            if options.channels_last:
                batch = batch.to(memory_format=torch.channels_last)
            arrays = {}
            for level, x_NHWC in enumerate(model(batch), 2):
                parts = int8(x_NHWC) if options.dtype == "int8" else {"x": x_NHWC.half()}
                arrays |= {f"p{level}_{name}": part.contiguous().numpy() for name, part in parts.items()}
            store.put(row, arrays)
            row += len(batch)
    store.close()
    if options.fsync:
        sync_tree(options.out)
    assert row == len(photographs) and os.listdir(options.out)


if __name__ == "__main__":
    main()
