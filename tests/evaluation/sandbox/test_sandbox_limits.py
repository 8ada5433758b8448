"""How generated programs end, and the limits that end them."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import time

import pytest


@pytest.mark.parametrize(
    ("source", "outcome", "detail"),
    [
        ("print('fine')", "passed", ""),
        ("", "passed", ""),
        ("assert 1 == 2, 'no'", "failed", "AssertionError: no"),
        ("def f(:", "failed", "SyntaxError"),
        ("import numpy", "failed", "ModuleNotFoundError"),
        ("import sys; sys.exit(0)", "failed", "SystemExit: 0"),
        ("import os; os._exit(0)", "failed", "ended itself with status 0"),
        ("def f(): f()\nf()", "failed", "RecursionError"),
        ("raise KeyboardInterrupt", "failed", "KeyboardInterrupt"),
        ("class E(Exception):\n def __str__(self): raise ValueError\nraise E", "failed", "E: ?"),
        ("import ctypes; ctypes.string_at(0)", "failed", "signal 11"),
        ("import os; os.abort()", "failed", "signal"),
        ("if __name__ == '__main__': raise ValueError", "passed", ""),
        ("assert input() == ''", "failed", "EOFError"),
        ("print(chr(0xd800), '東京')", "passed", ""),
    ],
)
def test_program_ends_as_it_does(sandbox, source, outcome, detail, run):
    verdict = run(sandbox, source)
    assert verdict.outcome == outcome, verdict
    assert detail in verdict.detail


def test_output_is_kept_up_to_its_cap_and_never_blocks_the_program(sandbox, run):
    verdict = run(sandbox, "for i in range(200000): print('x' * 99)\n", output_bytes=1000, wall_seconds=20)
    assert (verdict.outcome, len(verdict.output)) == ("passed", 1000)
    verdict = run(
        sandbox, "import sys\nwhile True: sys.stderr.write('y' * 9999)", output_bytes=1000, wall_seconds=0.5
    )
    assert (verdict.outcome, verdict.output) == ("timeout", "y" * 1000)


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import signal, time\nfor n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\nwhile True: pass",
        "while True:\n try:\n  while True: pass\n except BaseException: pass",
        "import threading\nthreading.Thread(target=lambda: threading.Event().wait()).start()\nthreading.Event().wait()",
        "'a' * 10 ** 9 in 'ab' * 10 ** 3\nimport re; re.match(r'(a+)+b', 'a' * 40)",
    ],
)
def test_program_that_does_not_end_is_ended(sandbox, source, run):
    begin = time.monotonic()
    assert run(sandbox, source, wall_seconds=0.5).outcome in {"timeout", "memory"}
    assert time.monotonic() - begin < 5


def test_processor_time_is_limited_too(sandbox, run):
    verdict = run(sandbox, "while True: pass", wall_seconds=20, cpu_seconds=1)
    assert (verdict.outcome, verdict.detail) == ("timeout", "used 1 s of processor time")


@pytest.mark.parametrize(
    "source",
    [
        "x = [0] * 10 ** 9",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "x = bytes(1 << 40)",
        "import mmap\nx = []\ntry:\n while True: x.append(mmap.mmap(-1, 1 << 24))\nexcept OSError: raise MemoryError",
        "x = 'a'\nwhile True: x += x",
    ],
)
def test_program_that_eats_memory_is_stopped(sandbox, source, run):
    assert run(sandbox, source, memory_bytes=1 << 28, wall_seconds=10).outcome == "memory"
