"""Settings of the verbs of a first day: `doctor`, `describe`, `demo` and `completion`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.config.fields import VerbConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig(VerbConfig):
    """Checks of this machine."""

    stores: str = "features"
    """Folder whose disk is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeConfig(VerbConfig):
    """A folder of own data, and the description to write."""

    data: str
    """Folder to look at; the flag itself may be left out."""
    out: str | None = None
    """Description to write, such as my.yaml. Default: it is printed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig(VerbConfig):
    """An end-to-end run on generated data with the bundled small backbone."""

    dataset: Literal["ade20k", "coco", "k400", "own", "depth", "pose"] = "ade20k"
    """Data set whose layout the generated scenes or clips follow; it determines the task. own: images and
    masks of own classes, described by `describe` first; depth: rooms and their depth maps, described too."""
    run: str = "runs/demo"
    """Folder for everything the demo creates: data, stores, runs, table and picture."""
    head: str | None = None
    """Head to train; for ade20k and k400 it is compared with the linear head. Default: bifpn1; for k400
    temporal4 and global4, for depth depth-linear."""
    seed: int = 0
    """Seed of the heads' initial weights and of the row order; the scenes are always the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionConfig(VerbConfig):
    """A shell that completes verbs and flags."""

    shell: Literal["bash", "zsh", "tcsh"] = "bash"
    """The shell to print the script for; its users source it or put it where their shell looks."""
