"""Memory that a process can still have, by files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.machine.free_memory import available_bytes

GIB = 1 << 30
UNLIMITED = 9223372036854771712  # what version 1 writes where there is no limit


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine with 64 GiB available."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemFree:  1 kB\nMemAvailable:   {64 * GIB >> 10} kB\n")
    return tmp_path / "proc"


def write_group(folder: Path, limit: int | str, used: int, stat: str, version: int) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names[version], (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(stat)


def test_version_2_takes_the_least_of_all_groups_around(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("0::/user.slice/job/step\n")
    assert available_bytes(proc, groups) == 64 * GIB
    write_group(groups / "user.slice" / "job" / "step", "max", 5 * GIB, "", 2)
    assert available_bytes(proc, groups) == 64 * GIB
    write_group(groups / "user.slice", 40 * GIB, 10 * GIB, "", 2)
    assert available_bytes(proc, groups) == 30 * GIB
    write_group(groups / "user.slice" / "job", 16 * GIB, 6 * GIB, "", 2)
    assert available_bytes(proc, groups) == 10 * GIB
    cached = f"anon 7\nfile {9 * GIB}\ninactive_file {3 * GIB}\nactive_file {GIB}\ninactive_anon 8\n"
    write_group(groups / "user.slice" / "job", 16 * GIB, 16 * GIB, cached, 2)
    assert available_bytes(proc, groups) == 4 * GIB, "the page cache is given back"
    write_group(groups / "user.slice" / "job", 16 * GIB, 17 * GIB, "", 2)
    assert available_bytes(proc, groups) == 0
    write_group(groups / "user.slice" / "job", 500 * GIB, 6 * GIB, "", 2)
    write_group(groups / "user.slice", 400 * GIB, 6 * GIB, "", 2)
    assert available_bytes(proc, groups) == 64 * GIB, "a limit is no memory"


def test_version_1_has_a_hierarchy_for_memory(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("5:cpu:/other\n4:hugetlb,memory:/slurm/job_7/step_0\n0::/\n")
    write_group(groups / "other", GIB, 0, "", 1)
    write_group(groups / "memory", UNLIMITED, 90 * GIB, "", 1)
    write_group(groups / "memory" / "slurm" / "job_7" / "step_0", UNLIMITED, 2 * GIB, "", 1)
    assert available_bytes(proc, groups) == 64 * GIB
    stat = f"inactive_file 5\nactive_file 6\ntotal_inactive_file {GIB}\ntotal_active_file 0\n"
    write_group(groups / "memory" / "slurm" / "job_7", 8 * GIB, 3 * GIB, stat, 1)
    assert available_bytes(proc, groups) == 6 * GIB


@pytest.mark.parametrize("line", ["0::/docker/4f1c", "0::/../../outside"])
def test_a_container_sees_its_own_group_as_the_root(line: str, proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text(f"{line}\n")
    write_group(tmp_path / "cgroup", 4 * GIB, GIB, "", 2)
    assert available_bytes(proc, tmp_path / "cgroup") == 3 * GIB


def test_a_kernel_without_groups_and_this_machine(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, tmp_path / "cgroup") == 64 * GIB
    assert 0 < available_bytes() < 1 << 50
