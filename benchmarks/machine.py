"""What a measurement has to be read with: the machine, its load and the versions at work."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("numpy", "zarr", "numcodecs", "tensorstore", "crc32c")


def conditions(folder: Path) -> dict[str, str]:
    """Of this run; `folder` is where the stores lie."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "memory": f"{memory_bytes / 1e9:.0f} GB",
        "disk": f"{folder} on {_file_system(folder.resolve())}",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
    }


def processor_seconds() -> float:
    """Of this process and of those it started that still run, such as decoders: so far, on all cores."""
    total, own = time.process_time(), str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # from field 3 on, after the name
        except OSError:  # it has just ended
            continue
        if fields[1] == own:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a rival that is not here
        return "none"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def _file_system(folder: Path) -> str:
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    types = {Path(line.split()[1]): line.split()[2] for line in lines}
    return next(
        (types[each] for each in [folder, *folder.parents] if each in types), "an unknown file system"
    )


def print_conditions(found: dict[str, str]) -> None:
    for name, value in found.items():
        print(f"{name + ':':11}{value}")
