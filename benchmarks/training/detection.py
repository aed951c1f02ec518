"""A training step of Mask R-CNN on cached features: ours beside torchvision's, in turns, in one run.

Both get the same maps of SwinV2-B, input norms, an FPN, 80 classes, the same instances (theirs as full
bitmaps, ours as cropped bits), as many as an image of COCO has, and after their own region proposals the
same boxes to sample RoIs from, so that both learn from as many positive RoIs. Forward and backward; medians
over the rounds of the time on a GPU and of the processor time on a CPU, which other work does not lengthen.
Each side keeps its conventions: torchvision reads 2 x 2 points of a bin, ours as many as it has cells.
"peak" is the largest memory beyond what was there before, "waits" how often the host waited for the GPU.

    python -m benchmarks.training.detection [--size 1024] [--batch 16] [--rounds 10] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import faster_rcnn, mask_rcnn, roi_heads, rpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from benchmarks import machine
from benchmarks.training.steps import count_waits
from heads import build_head
from heads.boxes.assignment import uniform_draws
from heads.boxes.ground_truth import stack_truth
from heads.detection.mask_rcnn import MaskRCNN
from heads.detection.roi_sampling import sample_rois
from heads.detection.rpn import Proposals
from heads.necks.input_norm import build_input_norms
from stores.pyramid import Level, PyramidSpec

CLASSES, WIDTH = 80, 256
COCO_INSTANCES = 7.3
"""Mean of an image of train2017: 860,001 on 117,266 images."""
PYRAMID = PyramidSpec(
    tuple(Level(name=f"p{i + 2}", stride_px=4 << i, channels=128 << i, stage=i + 1) for i in range(4))
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a step is given."""

    maps: list[Tensor]
    size: int
    ours: list[dict[str, Tensor]]
    theirs: list[dict[str, Tensor]]
    proposals: Tensor
    """(N, 1000, 4): half of them near instances, so that an image has its 128 positive RoIs."""


def scene_of(options: argparse.Namespace, device: torch.device) -> Scene:
    generator = torch.Generator().manual_seed(0)
    sizes = [-(-options.size // level.stride_px) for level in PYRAMID]
    maps = [
        torch.randn(options.batch, level.channels, cells, cells, generator=generator)
        .to(device, memory_format=torch.channels_last)
        .requires_grad_()
        for level, cells in zip(PYRAMID, sizes, strict=True)
    ]
    instances = [instances_of(options.size, generator) for _ in range(options.batch)]
    return Scene(
        maps=maps,
        size=options.size,
        ours=[{name: x.to(device) for name, x in cropped(*each).items()} for each in instances],
        theirs=[
            {"boxes": boxes.to(device), "labels": labels.to(device) + 1, "masks": masks.to(device)}
            for boxes, labels, masks in instances
        ],
        proposals=torch.stack([near(each[0], options.size, generator) for each in instances]).to(device),
    )


def instances_of(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and bitmaps of ellipses: geometric in number, sides from a 50th to half of the image."""
    count = int(torch.empty(1).geometric_(1 / COCO_INSTANCES, generator=generator).clamp(max=60))
    side = size / 50 * 25 ** torch.rand(count, 2, generator=generator)
    corner = (torch.rand(count, 2, generator=generator) * (size - side)).round()
    boxes = torch.cat([corner, corner + side.round()], 1)
    centre = torch.arange(size) + 0.5
    masks = []
    for x1, y1, x2, y2 in boxes.tolist():
        across = ((centre - (x1 + x2) / 2) / (x2 - x1) * 2) ** 2
        down = ((centre - (y1 + y2) / 2) / (y2 - y1) * 2) ** 2
        masks.append(down[:, None] + across <= 1)
    return boxes, torch.randint(CLASSES, (count,), generator=generator), torch.stack(masks).to(torch.uint8)


def cropped(boxes: Tensor, labels: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """As a store holds them."""
    windows = boxes.int().tolist()
    crops = [mask[y1:y2, x1:x2] for mask, (x1, y1, x2, y2) in zip(masks, windows, strict=True)]
    return {
        "boxes": boxes,
        "labels": labels,
        "mask_bits": torch.from_numpy(np.concatenate([np.packbits(crop.numpy()) for crop in crops])),
        "mask_hw": torch.tensor([crop.shape for crop in crops], dtype=torch.int32),
        "mask_yx": boxes[:, [1, 0]].int(),
    }


def near(boxes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """(1000, 4): 500 boxes near those given, 500 anywhere."""
    chosen = boxes[torch.randint(len(boxes), (500,), generator=generator)]
    extent = (chosen[:, 2:] - chosen[:, :2]).repeat(1, 2)
    close = chosen + torch.randn(500, 4, generator=generator) * 0.05 * extent
    corner = torch.rand(500, 2, generator=generator) * size * 0.8
    far = torch.cat([corner, corner + 8 + torch.rand(500, 2, generator=generator) * size * 0.2], 1)
    return torch.cat([close, far]).clamp(0, size)


class Ours:
    """heads/detection/mask_rcnn.py with its defaults."""

    def __init__(self, scene: Scene, device: torch.device) -> None:
        head = build_head("fpn", "detection", PYRAMID, CLASSES, seed=0)
        assert isinstance(head, MaskRCNN)
        self.head, self.scene = head.to(device).train(), scene
        self.module: nn.Module = self.head
        exists = torch.ones(scene.proposals.shape[:2], dtype=torch.bool, device=device)
        self.proposals = Proposals(boxes_NP4=scene.proposals, exists_NP=exists)
        propose = head.rpn.propose

        def replaced(*arguments: Any) -> Proposals:
            propose(*arguments)
            return self.proposals

        head.rpn.propose = replaced  # type: ignore[assignment, method-assign]

    def loss(self) -> Tensor:
        features = dict(zip(PYRAMID.names, self.scene.maps, strict=True))
        sizes = [(self.scene.size, self.scene.size)] * len(self.scene.ours)
        return torch.stack(list(self.head.losses(features, self.scene.ours, sizes).values())).sum()

    def count_positives(self) -> int:
        """RoIs that learn masks in one step."""
        sizes = [(self.scene.size, self.scene.size)] * len(self.scene.ours)
        device = self.scene.proposals.device
        truth = stack_truth(self.scene.ours, sizes, CLASSES, device)
        rule, samples = self.head.conventions.roi_rule, self.head.settings.roi_samples
        rois = sample_rois(self.proposals, truth, rule, samples, uniform_draws(None, device))
        return int(rois.positive_NS.sum())


class Theirs:
    """torchvision's MaskRCNN without its backbone and its resizing, after the same input norms."""

    def __init__(self, scene: Scene, device: torch.device) -> None:
        channels = [level.channels for level in PYRAMID]
        names = [str(level) for level in range(4)]
        self.scene = scene
        self.norms = build_input_norms("ln", channels)
        self.fpn = FeaturePyramidNetwork(channels, WIDTH, LastLevelMaxPool())
        self.rpn = rpn.RegionProposalNetwork(
            faster_rcnn._default_anchorgen(),
            rpn.RPNHead(WIDTH, 3),
            0.7,
            0.3,
            256,
            0.5,
            {"training": 2000, "testing": 1000},
            {"training": 2000, "testing": 1000},
            0.7,
        )
        self.roi_heads = roi_heads.RoIHeads(
            MultiScaleRoIAlign(names, 7, 2),
            faster_rcnn.TwoMLPHead(WIDTH * 49, 1024),
            faster_rcnn.FastRCNNPredictor(1024, CLASSES + 1),
            0.5,
            0.5,
            512,
            0.25,
            None,
            0.05,
            0.5,
            100,
            MultiScaleRoIAlign(names, 14, 2),
            mask_rcnn.MaskRCNNHeads(WIDTH, (WIDTH,) * 4, 1),
            mask_rcnn.MaskRCNNPredictor(WIDTH, WIDTH, CLASSES + 1),
        )
        self.module: nn.Module = nn.ModuleList([self.norms, self.fpn, self.rpn, self.roi_heads])
        self.module.to(device).to(memory_format=torch.channels_last).train()
        side = scene.size
        pixels = scene.maps[0].new_empty(1).expand(1, 3, side, side)
        self.images = ImageList(pixels, [(side, side)] * len(scene.ours))

    def loss(self) -> Tensor:
        normed = {
            str(level): norm(x)
            for level, (norm, x) in enumerate(zip(self.norms, self.scene.maps, strict=True))
        }
        maps = self.fpn(normed)
        _, losses = self.rpn(self.images, maps, self.scene.theirs)
        proposals = list(self.scene.proposals)
        _, roi_losses = self.roi_heads(maps, proposals, self.images.image_sizes, self.scene.theirs)
        return torch.stack([*losses.values(), *roi_losses.values()]).sum()

    def count_positives(self) -> int:
        _, _, labels, _ = self.roi_heads.select_training_samples(
            list(self.scene.proposals), self.scene.theirs
        )
        return int(sum((each > 0).sum() for each in labels))


class Step:
    """Forward and backward of one side."""

    def __init__(self, side: Ours | Theirs, device: torch.device) -> None:
        self.side, self.device = side, device
        self.on_gpu = device.type == "cuda"

    def run(self) -> float:
        """Seconds."""
        self.side.module.zero_grad()
        self._wait()
        clock = time.perf_counter if self.on_gpu else time.process_time
        began = clock()
        self._forward_and_backward()
        self._wait()
        return clock() - began

    def peak_bytes(self) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.run()
        return torch.cuda.max_memory_allocated(self.device) - before

    def waits(self) -> int | None:
        return count_waits(self._forward_and_backward, self.device)

    def _forward_and_backward(self) -> None:
        with torch.autocast("cuda", torch.bfloat16) if self.on_gpu else nullcontext():
            loss = self.side.loss()
        torch.autograd.backward(loss)

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    torch.manual_seed(0)
    scene = scene_of(options, device)
    sides: dict[str, Ours | Theirs] = {"ours": Ours(scene, device), "torchvision": Theirs(scene, device)}
    steps = {name: Step(side, device) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(options.warm_up + options.rounds):
        for name, step in steps.items():
            taken = step.run()
            if round_number >= options.warm_up:
                seconds[name].append(taken)
    rows = {
        name: {
            "ms": 1e3 * statistics.median(seconds[name]),
            "positives": sides[name].count_positives(),
            "peak_mb": step.peak_bytes() / 1e6 if step.on_gpu else None,
            "waits": step.waits(),
        }
        for name, step in steps.items()
    }
    return {"conditions": conditions(options, device), "instances": _instances(scene), "rows": rows}


def _instances(scene: Scene) -> int:
    return sum(len(each["boxes"]) for each in scene.ours)


def conditions(options: argparse.Namespace, device: torch.device) -> dict[str, str]:
    on_gpu = device.type == "cuda"
    shared = machine.conditions(Path.cwd())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision"))
    return {
        "cpu": f"{shared['cpu']}, load {shared['load']}",
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "libraries": f"Python {platform.python_version()}, {libraries}",
        "setting": f"{options.size} px, batch {options.batch}, {'bf16 autocast' if on_gpu else 'fp32'}, "
        f"{options.rounds} rounds",
    }


def print_table(found: dict[str, Any]) -> None:
    for name, value in found["conditions"].items():
        print(f"{name + ':':11}{value}")
    print(f"{'instances:':11}{found['instances']}\n")
    print(f"{'':14}{'ms':>10}{'positives':>11}{'peak MB':>10}{'waits':>8}")
    for name, row in found["rows"].items():
        peak, waits = ("-" if row[key] is None else f"{row[key]:.0f}" for key in ("peak_mb", "waits"))
        print(f"{name:14}{row['ms']:>10.1f}{row['positives']:>11}{peak:>10}{waits:>8}")
    ours, theirs = (found["rows"][name]["ms"] for name in ("ours", "torchvision"))
    print(f"\ntorchvision takes {theirs / ours:.2f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--size", type=int, default=1024 if gpu else 256, help="side of the views in pixels")
    parser.add_argument("--batch", type=int, default=16 if gpu else 2)
    parser.add_argument("--rounds", type=int, default=10 if gpu else 3)
    parser.add_argument("--warm-up", type=int, default=3 if gpu else 1, help="rounds that do not count")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
