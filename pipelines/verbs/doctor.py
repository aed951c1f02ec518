"""`doctor`: checks Python, packages, accelerator and disk, and prints a fix for what is broken."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from pipelines.catalog.stores import local_folder, require_on_disk
from pipelines.config import DoctorConfig
from pipelines.errors import WorkFailed
from pipelines.forecast.exclusive_probe import way_of, way_text
from stores.remote.store_url import store_path

DISTRIBUTION = "permafrost"
MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "pycocotools": "pycocotools.mask"}
FSYNC_BYTES = 16 << 20  # 16 MiB: long enough to see a disk, short enough for a network share


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    name: str
    text: str
    fix: str = ""
    """What to do; empty where nothing is broken."""

    def __str__(self) -> str:
        mark = "BAD" if self.fix else "ok "
        return f"{mark} {self.name}: {self.text}" + (f"\n      fix: {self.fix}" if self.fix else "")


class Unhealthy(WorkFailed):
    """Something is broken; carries the summary."""

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__("broken: " + ", ".join(summary["broken"]), summary)


def run(config: DoctorConfig) -> dict[str, Any]:
    """Prints every finding. Raises Unhealthy naming what is broken, UsageError where stores cannot be."""
    require_on_disk(
        store_path(config.stores),
        "doctor",
        "pass a folder, whose disk is measured; `plan` with these --stores tries and measures the bucket",
    )
    stores = local_folder(config.stores)
    findings = [check_python(), *check_packages(), *check_imports(), check_video(), check_accelerator()]
    findings += [check_disk(stores), check_exclusive(stores)]
    for finding in findings:
        print(finding)
    summary = {
        "broken": [finding.name for finding in findings if finding.fix],
        "findings": {finding.name: finding.text for finding in findings},
    }
    if summary["broken"]:
        raise Unhealthy(summary)
    return summary


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    text = f"{'.'.join(map(str, version))} on {platform.machine()}"
    if version < (3, 11):
        return Finding(
            "python", text, "Permafrost needs 3.11 or newer: make setup PYTHON=/path/to/python3.11"
        )
    return Finding("python", text)


def check_packages(
    requirements: list[str] | None = None, version_of: Callable[[str], str] = metadata.version
) -> Iterator[Finding]:
    """Every declared dependency against what is installed, without importing it (a malicious one would run).

    Args:
        requirements: as in pyproject.toml; None reads those of the installed project.
        version_of: the installed version of a package; raises PackageNotFoundError.
    """
    try:
        # Late: a broken environment may lack it, which is a finding.
        from packaging.requirements import Requirement

        declared = metadata.requires(DISTRIBUTION) or [] if requirements is None else requirements
    except (ImportError, metadata.PackageNotFoundError) as error:
        yield Finding(DISTRIBUTION, f"not installed ({error})", "make setup")
        return
    for requirement in map(Requirement, declared):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, install = requirement.name, f"{sys.executable} -m pip install '{requirement}'"
        try:
            version = version_of(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "not installed", install)
            continue
        if version in MALICIOUS.get(name, ()):
            remove = f"{sys.executable} -m pip uninstall {name}"
            yield Finding(
                name,
                f"{version} is a malicious release",
                f"{remove}; then change every credential on this machine",
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(name, f"{version}, expected {requirement.specifier}", install)
        else:
            yield Finding(name, version)


def check_imports(load: Callable[[str], Any] = import_module) -> Iterator[Finding]:
    """Whether the packages with compiled parts load; says nothing of those that are missing altogether."""
    if any(finding.fix for finding in check_packages() if finding.name in MALICIOUS):
        return
    for name in ("torch", "torchvision", "timm", "lightning", "zarr", "numcodecs", "pycocotools", "pillow"):
        try:
            load(MODULES.get(name, name))
        except ModuleNotFoundError as error:
            if error.name != MODULES.get(name, name):
                yield Finding(f"import {name}", str(error), "make setup")
        except Exception as error:  # whatever a broken package raises is the finding
            yield Finding(f"import {name}", f"{type(error).__name__}: {error}", _import_fix(name))


def _import_fix(name: str) -> str:
    if name in ("torchvision", "timm") and _torch_is_cpu_only():
        return (
            "torch is a CPU-only build, but torchvision from PyPI needs the CUDA build; "
            f"reinstall both at once: {sys.executable} -m pip install --force-reinstall torch torchvision"
        )
    return f"{sys.executable} -m pip install --force-reinstall {name}"


def _torch_is_cpu_only() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.version.cuda is None


def check_video(load: Callable[[str], Any] = import_module) -> Finding:
    """Videos need one of two decoders; images need neither."""
    found, missing = [], []
    for name in ("decord", "av"):
        try:
            load(name)
            found.append(name)
        except (
            ImportError,
            OSError,
            RuntimeError,
        ) as error:  # decord raises the last two for a missing library
            missing.append(f"{name}: {error}")
    if not found:
        return Finding(
            "video decoders",
            "; ".join(missing),
            f"{sys.executable} -m pip install decord av (images need neither)",
        )
    return Finding("video decoders", "; ".join([", ".join(found), *missing]))


def check_accelerator() -> Finding:
    """The GPU that torch finds. None is not a fault: everything runs on a CPU, slowly."""
    try:
        import torch  # late: a torch that does not load is a finding
    except Exception as error:
        return Finding("accelerator", f"unknown, torch does not load: {error}")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        return Finding(
            "accelerator", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB, CUDA {torch.version.cuda}"
        )
    if torch.version.cuda is None:
        return Finding("accelerator", "none: this torch is a CPU-only build")
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        return Finding(
            "accelerator",
            f"nvidia-smi is installed, but torch (CUDA {torch.version.cuda}) finds no GPU",
            "run `nvidia-smi`; the driver may be too old for this CUDA version",
        )
    return Finding("accelerator", f"none: CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads")


def check_disk(stores: Path) -> Finding:
    """Free space and the speed of a write that has reached the disk, where stores would stand."""
    folder = next(place for place in (stores.absolute(), *stores.absolute().parents) if place.is_dir())
    name = f"disk of {folder}"
    probe = folder / f".permafrost-doctor-{os.getpid()}"
    try:
        started = time.perf_counter()
        with probe.open("xb") as file:
            file.write(os.urandom(FSYNC_BYTES))
            file.flush()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
    except OSError as error:
        return Finding(name, f"not writable: {error}", "pass another --stores or fix its permissions")
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too, and is the finding
            probe.unlink()
    free = shutil.disk_usage(folder).free
    return Finding(name, f"{free / 1e9:.1f} GB free, {FSYNC_BYTES / 1e6 / seconds:.0f} MB/s with fsync")


def check_exclusive(stores: Path) -> Finding:
    """Whether several processes may extract into one store there."""
    try:
        way = way_of(stores)
    except OSError as error:
        return Finding("writers", f"unknown: {error}")  # `check_disk` finds the fault
    fix = "" if way else "choose another --stores, or pass --single-writer to extract"
    return Finding("writers", way_text(way), fix)
