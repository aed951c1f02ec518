"""Memory available to this process, within the limits of its container or job."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes available without swapping, page cache included.

    Args:
        proc, cgroups: where Linux reports on processes and on the control groups of containers and jobs.
    """
    return min([_of_the_machine(proc), *_within_limits(proc, cgroups)])


def _of_the_machine(proc: Path) -> int:
    found = re.search(r"MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text())
    return int(found[1]) << 10 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _within_limits(proc: Path, cgroups: Path) -> Iterator[int]:
    """What is left of each limit on the process's control groups, in version 1 or 2."""
    try:
        groups = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:  # a kernel without control groups
        return
    for _, controllers, path in (line.split(":", 2) for line in groups):
        if not controllers:
            yield from _left(cgroups, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            folder = cgroups / "memory"
            yield from _left(folder, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _left(root: Path, path: str, limit: str, usage: str, of_all: str) -> Iterator[int]:
    """What is left of the limit on the group at `path` under `root`, and on each around it.

    Args:
        limit, usage: names of files.
        of_all: begins the names of figures that count groups inside too.
    """
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            most = (folder / limit).read_text().strip()
            used = int((folder / usage).read_text())
            figures = (folder / "memory.stat").read_text()
        except OSError:  # no limit here, or a group that a container does not see
            continue
        if most != "max":
            # The page cache counts as used, but is released on demand.
            cached = re.findall(rf"^{of_all}(?:in)?active_file (\d+)$", figures, re.MULTILINE)
            yield max(0, int(most) - used + sum(map(int, cached)))
