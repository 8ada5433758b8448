"""What a process may use, and what it has used."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tsugiki.artifacts.processes import peak_memory_bytes, usable_cores

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATIONS = """
import json, resource, time, torch
from tsugiki.artifacts.processes import memory_kept

def faults(numbers=25_000_000):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(numbers)  # 100 MB: 24,414 pages of 4 KB, 48 of 2 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

found = {}
if not FIRST:
    found["before"] = [faults() for _ in range(3)]
with memory_kept():
    found["kept"] = [faults(25_000_000 - 100_000 * number) for number in range(4)]
    # blocks of one size, and what fits between them: the heap grows without end
    between, most = [], 0
    for _ in range(GROWTH):
        torch.ones(25_000_000)
        between.append(torch.ones(100))
        most = max(most, resident())
        time.sleep(0.02)
    found["most"] = most
found["after"] = [faults() for _ in range(3)]
found["bytes"] = resident()
print(json.dumps(found))
"""
only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is set")
PEAK = "from tsugiki.artifacts.processes import peak_memory_bytes; print(peak_memory_bytes())"


def test_usable_cores_are_those_that_the_process_is_bound_to() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cores() == len(allowed)


def test_peak_memory_stays_when_the_memory_is_given_back() -> None:
    block = bytearray(b"x") * (64 * 2**20)
    peak = peak_memory_bytes()
    del block
    assert peak >= 64 * 2**20
    assert peak_memory_bytes() > 0.9 * peak  # the kernel's count is off by some pages


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only /proc counts anew")  # noqa: PTH110
def test_peak_memory_of_a_new_program_is_its_own() -> None:
    block = bytearray(b"x") * (256 * 2**20)
    found = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(found.stdout) < len(block)


def allocations(*, first: bool = False, growth: int = 1, **environment: str) -> dict[str, Any]:
    """Page faults of allocations before, within and after, and the bytes held.

    first: nothing before. growth: blocks of one size that don't fit where the last one was.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "THP_"))}
    code = ALLOCATIONS.replace("FIRST", str(first)).replace("GROWTH", str(growth))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@only_glibc
def test_memory_is_kept_for_the_next_allocation_and_given_back_afterwards() -> None:
    found = allocations()
    assert min(found["before"]) > 20_000
    assert max(found["kept"][1:]) < 1_000
    assert min(found["after"]) > 20_000
    assert found["most"] - found["bytes"] > 80e6


@only_glibc
def test_memory_that_fits_nothing_new_is_given_back() -> None:
    found = allocations(growth=100)  # 10 GB, one after another
    assert found["most"] - found["bytes"] < 3e9


@only_glibc
def test_memory_is_taken_in_huge_pages_where_the_system_has_them() -> None:
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        pytest.skip("this system has no huge pages")
    assert allocations(first=True)["kept"][0] < 5_000
    assert allocations(first=True, THP_MEM_ALLOC_ENABLE="0")["kept"][0] > 20_000


@only_glibc
def test_the_environments_settings_of_malloc_win() -> None:
    found = allocations(MALLOC_TOP_PAD_="131072")
    assert min(found["kept"]) > 20_000
