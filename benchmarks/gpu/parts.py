"""The parts of the GPU benchmark in their order, with their limits and what they run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A module of benchmarks that prints a line of JSON for each thing it has measured."""

    module: str
    words: str
    """Arguments on a GPU."""
    tiny: str
    """Those of `--tiny`: the same code on small input."""
    label: str = ""
    """Before the names of its figures, where a part runs a module twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Commands that share a limit."""

    name: str
    claim: str
    limit_s: float
    commands: tuple[Command, ...]


_PIPELINE = "--model swinv2-b --size 512 --batch 32 --rows 256 --rounds 1 --no-compile"
_TINY_PIPELINE = "--model swinv2-nano --size 64 --batch 2 --rows 4 --rounds 1 --no-compile --workers 1"

PARTS = (
    Part(
        name="fed",
        claim="a step fed from a store takes as long as one on a batch that stays",
        limit_s=100,
        commands=(
            Command(
                module="benchmarks.training.feed",
                words="--batch 16 --side-px 512 --rows 64 --rounds 5 --steps 6",
                tiny="--batch 2 --side-px 64 --frames 4 --rows 4 --rounds 1 --steps 1 --cases "
                "segmentation:linear,segmentation:bifpn1,segmentation:m2f-pd1-td3,detection:fpn,video:global1",
            ),
        ),
    ),
    Part(
        name="extraction",
        claim="an extraction delivers 90 % of its slowest stage",
        limit_s=70,
        commands=(
            Command(
                module="benchmarks.extraction.pipeline",
                words=f"{_PIPELINE} --folder /dev/shm",
                tiny=f"{_TINY_PIPELINE} --folder /dev/shm",
                label="memory",
            ),
            Command(
                module="benchmarks.extraction.pipeline",
                words=_PIPELINE,
                tiny=_TINY_PIPELINE,
                label="disk",
            ),
        ),
    ),
    Part(
        name="backbones",
        claim="2.5 times timm eager (L 2.2), 1.08 times timm compiled",
        limit_s=110,
        commands=(
            Command(
                module="benchmarks.extraction.backbones",
                words="swinv2-t:512:32 swinv2-b:512:32 swinv2-l:512:16 --rounds 7 --ready-s 80 "
                "--rivals timm_eager,timm_compiled,ours_compiled",
                tiny="swinv2-nano:64:1 --rounds 1 --rivals timm_eager,ours",
            ),
        ),
    ),
    Part(
        name="heads",
        claim="a step of Mask2Former and of Mask R-CNN beside transformers' and torchvision's",
        limit_s=60,
        commands=(
            Command(
                module="benchmarks.training.mask2former",
                words="--rounds 6",
                tiny="--size 64 --batch 1 --pixel-layers 1 --decoder-layers 1 --points 64 --rounds 1",
                label="Mask2Former",
            ),
            Command(
                module="benchmarks.training.detection",
                words="--rounds 5",
                tiny="--size 64 --batch 1 --rounds 1",
                label="Mask R-CNN",
            ),
        ),
    ),
    Part(
        name="caching",
        claim="what a step takes with all levels cached, with the deep ones, and without a store",
        limit_s=60,
        commands=(
            Command(
                module="benchmarks.training.caching",
                words="--model swinv2-b --size 512 --batch 16 --rounds 5 --heads linear,bifpn5",
                tiny="--model swinv2-nano --size 64 --batch 1 --rounds 1 --heads linear",
            ),
        ),
    ),
    Part(
        name="many heads",
        claim="several heads in one pass take at most 1.02 of each alone and one read",
        limit_s=30,
        commands=(
            Command(
                module="benchmarks.training.many_heads",
                words="--side-px 512 --batch 8 --rounds 3 --steps 4",
                tiny="--side-px 64 --batch 2 --rounds 1 --steps 1 --heads linear,fpn",
            ),
        ),
    ),
    Part(
        name="giant",
        claim="SwinV2-G: 2.4 times timm eager, within 24 GB",
        limit_s=50,
        commands=(
            Command(
                module="benchmarks.extraction.backbones",
                words="swinv2-g:640:1 --rounds 3 --ready-s 42 --rivals timm_eager,ours",
                tiny="swinv2-nano:96:1 --rounds 1 --rivals timm_eager,ours",
            ),
        ),
    ),
)
