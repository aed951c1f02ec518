"""Provenance of a shard: device and library versions. No host, path, user or time."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from PIL import features

_LIBRARIES = ("timm", "numpy", "pillow")
_VIDEO_LIBRARIES = ("decord", "av")


def provenance(device: torch.device, *, of_videos: bool = False) -> dict[str, str]:
    """Names and versions of what computed the features; stands in every receipt."""
    found = {name: version(name) for name in _LIBRARIES}
    if of_videos:
        found |= {name: version(name) if find_spec(name) else "absent" for name in _VIDEO_LIBRARIES}
    found["torch"] = torch.__version__  # with the build, such as +cpu, which the metadata lack
    found["libjpeg_turbo"] = str(features.version_feature("libjpeg_turbo"))
    found["python"] = platform.python_version()
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    else:
        found["device"] = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return found


def differences(ours: Mapping[str, str], theirs: Mapping[str, Any]) -> list[str]:
    """Where two provenances differ, as texts such as "torch 2.13.0, now 2.14.1"."""
    names = sorted({*ours, *theirs})
    return [f"{n} {theirs.get(n)}, now {ours.get(n)}" for n in names if ours.get(n) != theirs.get(n)]
