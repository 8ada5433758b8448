"""What a process may use, and what it has used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tsugiki.artifacts.processes import peak_memory_bytes, usable_cores

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
