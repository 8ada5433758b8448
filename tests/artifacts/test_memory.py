"""Free memory: the machine's, and the limits of control groups within it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsugiki.artifacts.memory import free_memory_bytes

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 64000 kB\nMemAvailable: 33554432 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/slurm/job_1/step_0\n")
    (tmp_path / "sys/fs/cgroup/slurm/job_1/step_0").mkdir(parents=True)
    return tmp_path


def limit(machine: Path, group: str, maximum: str, held: int, cache: int = 0) -> None:
    directory = machine / "sys/fs/cgroup" / group
    (directory / "memory.max").write_text(f"{maximum}\n")
    (directory / "memory.current").write_text(f"{held}\n")
    (directory / "memory.stat").write_text(f"anon {held - cache}\ninactive_file {cache}\n")


def test_free_memory_without_limits_is_the_machines(machine: Path) -> None:
    assert free_memory_bytes(machine) == 32 * GIB


def test_free_memory_in_a_group_with_a_limit_is_what_the_group_has_left(machine: Path) -> None:
    limit(machine, "slurm/job_1", str(8 * GIB), 6 * GIB, cache=3 * GIB)
    limit(machine, "slurm/job_1/step_0", "max", 6 * GIB)
    assert free_memory_bytes(machine) == 5 * GIB


def test_free_memory_takes_the_tightest_of_the_groups_above(machine: Path) -> None:
    limit(machine, "slurm", str(40 * GIB), 36 * GIB)
    limit(machine, "slurm/job_1/step_0", str(8 * GIB), 1 * GIB)
    assert free_memory_bytes(machine) == 4 * GIB


def test_free_memory_of_a_group_over_its_limit_is_nothing(machine: Path) -> None:
    limit(machine, "slurm/job_1", str(1 * GIB), 2 * GIB)
    assert free_memory_bytes(machine) == 0


@pytest.mark.parametrize("damaged", ["", "no colon here", "MemAvailable: x kB"])
def test_free_memory_where_the_system_says_nothing_is_all_that_is_built_in(
    machine: Path, damaged: str
) -> None:
    (machine / "proc/meminfo").write_text(damaged)
    assert free_memory_bytes(machine) > GIB // 4


def test_free_memory_of_this_machine_is_a_number_of_bytes() -> None:
    assert 2**20 < free_memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
