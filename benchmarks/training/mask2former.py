r"""What a training step of Mask2Former costs, part by part, ours beside transformers' in one run.

Forward and backward of the pixel decoder, the masked decoder and the losses with their matching, and of all
three in a row. Both take turns on the same features and targets; medians over the rounds are printed, of the
time on a GPU and of the processor time on a CPU, which other work does not lengthen. Their masked decoder
makes every query's mask, which ours leaves to the losses: the whole step is what compares. "kept" is what
autograd holds between the two passes, on any device.

    python -m benchmarks.training.mask2former [--size 512] [--batch 16] [--pixel-layers 6] \
        [--decoder-layers 9] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as theirs

from heads.mask2former.losses import matched_losses
from heads.mask2former.masked_decoder import MaskedDecoder, MaskPredictions
from heads.mask2former.pixel_decoder import DecodedPixels, PixelDecoder
from heads.mask2former.point_sampling import uniform_points

CLASSES, WIDTH, QUERIES = 150, 256, 100
Tensors = dict[str, Tensor]
PARTS = ("pixel decoder", "masked decoder", "losses", "whole step")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a step is given."""

    maps: list[Tensor]
    """p2 to p5 of SwinV2-B, after their norms."""
    labels: Tensor
    """uint8 (N, size, size)."""
    autocast: Callable[[], AbstractContextManager[Any]]


class Ours:
    """The parts of heads/mask2former/head.py."""

    def __init__(self, channels: list[int], options: argparse.Namespace) -> None:
        self.pixel_decoder = PixelDecoder(channels, WIDTH, options.pixel_layers)
        self.masked_decoder = MaskedDecoder(WIDTH, options.decoder_layers, QUERIES, CLASSES, 3)
        self.points = options.points

    def modules(self) -> list[nn.Module]:
        return [self.pixel_decoder, self.masked_decoder]

    def decode_pixels(self, maps: list[Tensor]) -> Tensors:
        pixels = self.pixel_decoder(maps)
        self._shape = pixels
        return {"masks": pixels.mask_features_NCYX, **{f"cells{i}": x for i, x in enumerate(pixels.cells)}}

    def decode_masks(self, pixels: Tensors) -> Tensors:
        """Of what `decode_pixels` gave last."""
        predicted = self.masked_decoder(
            DecodedPixels(
                mask_features_NCYX=pixels["masks"],
                cells=tuple(pixels[f"cells{i}"] for i in range(3)),
                positions=self._shape.positions,
                sizes=self._shape.sizes,
            )
        )
        return {
            "classes": predicted.class_logits_PNQK,
            "embeddings": predicted.embeddings_PNQC,
            "features": predicted.mask_features_NCYX,
        }

    def loss(self, predicted: Tensors, labels: Tensor) -> Tensor:
        predictions = MaskPredictions(
            class_logits_PNQK=predicted["classes"],
            embeddings_PNQC=predicted["embeddings"],
            mask_features_NCYX=predicted["features"],
        )
        terms = matched_losses(predictions, labels, self.points, uniform_points(None, labels.device))
        return torch.stack(list(terms.values())).sum()


class Theirs:
    """The same parts of transformers, as Mask2FormerForUniversalSegmentation puts them together."""

    def __init__(self, channels: list[int], options: argparse.Namespace) -> None:
        config = Mask2FormerConfig(
            encoder_layers=options.pixel_layers,
            decoder_layers=options.decoder_layers + 1,
            num_queries=QUERIES,
            num_labels=CLASSES,
            train_num_points=options.points,
        )
        self.pixel_decoder = theirs.Mask2FormerPixelDecoder(config, channels)
        nn.init.normal_(self.pixel_decoder.level_embed)
        self.masked_decoder = theirs.Mask2FormerTransformerModule(WIDTH, config)
        self.classifier = nn.Linear(WIDTH, CLASSES + 1)
        self.criterion = theirs.Mask2FormerLoss(config, {})

    def modules(self) -> list[nn.Module]:
        return [self.pixel_decoder, self.masked_decoder, self.classifier, self.criterion]

    def decode_pixels(self, maps: list[Tensor]) -> Tensors:
        pixels = self.pixel_decoder(maps)
        levels = {f"level{i}": x for i, x in enumerate(pixels.multi_scale_features)}
        return {"masks": pixels.mask_features, **levels}

    def decode_masks(self, pixels: Tensors) -> Tensors:
        predicted = self.masked_decoder([pixels[f"level{i}"] for i in range(3)], pixels["masks"])
        states, masks = predicted.intermediate_hidden_states, predicted.masks_queries_logits
        classes = {f"classes{i}": self.classifier(x.transpose(0, 1)) for i, x in enumerate(states)}
        return classes | {f"masks{i}": x for i, x in enumerate(masks)}

    def loss(self, predicted: Tensors, labels: Tensor) -> Tensor:
        last = len(predicted) // 2 - 1
        found = [image[image != 255].unique() for image in labels]
        binary = [
            (image == classes[:, None, None]).float() for image, classes in zip(labels, found, strict=True)
        ]
        auxiliary = [
            {"masks_queries_logits": predicted[f"masks{i}"], "class_queries_logits": predicted[f"classes{i}"]}
            for i in range(last)
        ]
        terms = self.criterion(
            predicted[f"masks{last}"],
            predicted[f"classes{last}"],
            binary,
            [classes.long() for classes in found],
            auxiliary,
        )
        weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
        return torch.stack([weights[name.rstrip("_0123456789")] * term for name, term in terms.items()]).sum()


def scene_of(options: argparse.Namespace, device: torch.device) -> Scene:
    """Standard normal maps of SwinV2-B; label maps of nine classes in blobs, about what a crop holds."""
    generator = torch.Generator().manual_seed(0)
    sizes = [-(-options.size // stride) for stride in (4, 8, 16, 32)]
    maps = [
        torch.randn(options.batch, 128 << i, cells, cells, generator=generator)
        .to(device, memory_format=torch.channels_last)
        .requires_grad_()
        for i, cells in enumerate(sizes)
    ]
    classes = torch.stack([torch.randperm(CLASSES, generator=generator)[:9] for _ in range(options.batch)])
    blob = torch.randint(9, (options.batch, 64), generator=generator)
    coarse = classes.gather(1, blob).view(options.batch, 1, 8, 8).float()
    labels = nn.functional.interpolate(coarse, size=(options.size, options.size))[:, 0].to(torch.uint8)
    low = device.type == "cuda"
    return Scene(
        maps=maps,
        labels=labels.to(device),
        autocast=lambda: torch.autocast("cuda", torch.bfloat16) if low else nullcontext(),
    )


class Part:
    """One part of one head: runs forward and backward, and measures what is kept between."""

    def __init__(self, head: Ours | Theirs, name: str, scene: Scene, device: torch.device) -> None:
        self.head, self.name, self.scene, self.device = head, name, scene, device
        self.inputs: Tensors | None = None
        self.grads: list[Tensor] | None = None

    def run(self) -> float:
        """Seconds of one forward and backward."""
        for module in self.head.modules():
            module.zero_grad()
        self._wait()
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        began = clock()
        outputs = self._forward()
        if self.grads is None:
            self.grads = [torch.randn_like(x) * 1e-3 if x.ndim else torch.ones_like(x) for x in outputs]
        torch.autograd.backward(outputs, self.grads)
        self._wait()
        return clock() - began

    def kept_bytes(self) -> int:
        """Of the tensors that the backward pass will read, parameters and inputs apart."""
        owned = {p.untyped_storage().data_ptr() for m in self.head.modules() for p in m.parameters()}
        owned |= {x.untyped_storage().data_ptr() for x in [*self.scene.maps, *(self.inputs or {}).values()]}
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in owned:
                kept[storage.data_ptr()] = storage.nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            outputs = self._forward()
        del outputs
        return sum(kept.values())

    def peak_bytes(self) -> int | None:
        """Largest memory of a run beyond what was in use before it, in bytes; None on a CPU."""
        if self.device.type != "cuda":
            return None
        self._wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.run()
        return torch.cuda.max_memory_allocated(self.device) - before

    def _forward(self) -> list[Tensor]:
        with self.scene.autocast():
            if self.name == "pixel decoder":
                return list(self.head.decode_pixels(self.scene.maps).values())
            if self.name == "whole step":
                predicted = self.head.decode_masks(self.head.decode_pixels(self.scene.maps))
                return [self.head.loss(predicted, self.scene.labels)]
            if self.inputs is None:
                self.inputs = self._prepare()
            if self.name == "masked decoder":
                return list(self.head.decode_masks(self.inputs).values())
            return [self.head.loss(self.inputs, self.scene.labels)]

    def _prepare(self) -> Tensors:
        with torch.no_grad():
            found = self.head.decode_pixels(self.scene.maps)
            if self.name == "losses":
                found = self.head.decode_masks(found)
        return {name: x.detach().requires_grad_() for name, x in found.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    torch.manual_seed(0)
    channels = [128 << i for i in range(4)]
    scene = scene_of(options, device)
    heads: dict[str, Ours | Theirs] = {"ours": Ours(channels, options), "theirs": Theirs(channels, options)}
    for head in heads.values():
        for module in head.modules():
            module.to(device).train()
        if options.compile:
            head.pixel_decoder = torch.compile(head.pixel_decoder)
            head.masked_decoder = torch.compile(head.masked_decoder)
    rows = []
    for name in PARTS:
        parts = {whose: Part(head, name, scene, device) for whose, head in heads.items()}
        seconds: dict[str, list[float]] = {whose: [] for whose in parts}
        for part in parts.values():
            part.run()
        for _ in range(options.rounds):
            for whose, part in parts.items():
                seconds[whose].append(part.run())
        row: dict[str, Any] = {"part": name}
        for whose, part in parts.items():
            row[f"{whose}_ms"] = 1e3 * statistics.median(seconds[whose])
            row[f"{whose}_kept_mb"] = part.kept_bytes() / 1e6
            peak = part.peak_bytes()
            row[f"{whose}_peak_mb"] = None if peak is None else peak / 1e6
        rows.append(row)
    return {"conditions": conditions(device), "setting": setting(options, device), "rows": rows}


def conditions(device: torch.device) -> dict[str, str]:
    names = ("torch", "transformers", "scipy")
    return {
        "machine": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": str(torch.get_num_threads()),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]),
    }


def setting(options: argparse.Namespace, device: torch.device) -> str:
    return (
        f"SwinV2-B, {options.size} px, batch {options.batch}, {options.pixel_layers} pixel decoder layers, "
        f"{options.decoder_layers}+1 predictions, {options.points} points, "
        f"{'bf16 autocast' if device.type == 'cuda' else 'fp32'}{', compiled' if options.compile else ''}, "
        f"{options.rounds} rounds"
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def print_table(found: dict[str, Any]) -> None:
    for name, value in found["conditions"].items():
        print(f"{name + ':':11}{value}")
    print(f"{'setting:':11}{found['setting']}\n")
    columns = ("ours ms", "theirs ms", "ratio", "kept MB", "theirs MB", "peak MB", "theirs MB")
    print(f"{'part':16}" + "".join(f"{column:>11}" for column in columns))
    for row in found["rows"]:
        figures: Sequence[float | None] = (
            row["ours_ms"],
            row["theirs_ms"],
            row["theirs_ms"] / row["ours_ms"],
            row["ours_kept_mb"],
            row["theirs_kept_mb"],
            row["ours_peak_mb"],
            row["theirs_peak_mb"],
        )
        print(f"{row['part']:16}" + "".join(f"{'-' if x is None else f'{x:.1f}':>11}" for x in figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--size", type=int, default=512 if gpu else 256, help="side of the views in pixels")
    parser.add_argument("--batch", type=int, default=16 if gpu else 2)
    parser.add_argument("--pixel-layers", type=int, default=6)
    parser.add_argument("--decoder-layers", type=int, default=9)
    parser.add_argument("--points", type=int, default=12544)
    parser.add_argument("--rounds", type=int, default=20 if gpu else 5)
    parser.add_argument("--compile", action="store_true", help="torch.compile of both decoders, of both")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
