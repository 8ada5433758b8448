"""Programs in, verdicts out; and machines that refuse."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tsugiki.errors import DependencyError, StageError
from tsugiki.evaluation.sandbox import worker
from tsugiki.evaluation.sandbox.checks import human_eval_program, require_sandbox, run_checks
from tsugiki.evaluation.sandbox.inside import Limits
from tsugiki.evaluation.sandbox.worker import Worker

PROMPT = 'def add(a, b):\n    """Add two numbers."""\n'
TEST = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n"


def test_run_checks_gives_verdicts_in_order_whatever_the_workers(sandbox):
    right = human_eval_program(PROMPT, "    return a + b\n", TEST, "add")
    wrong = human_eval_program(PROMPT, "    return a - b\n", TEST, "add")
    empty = human_eval_program(PROMPT, "", TEST, "add")
    endless = human_eval_program(PROMPT, "    while True: pass\n", TEST, "add")
    programs = [right, wrong, endless, empty, "x = '\ud800'", right, " " * (1 << 20) + "pass"] + [
        right,
        wrong,
    ] * 4
    expected = ["passed", "failed", "timeout", "failed", "refused", "passed", "refused"] + [
        "passed",
        "failed",
    ] * 4
    for workers in (1, 2):
        found = run_checks(programs, workers=workers, limits=Limits(wall_seconds=1))
        assert [one.outcome for one in found] == expected
    assert run_checks([]) == []
    assert found[1].detail == "AssertionError: "


def test_programs_are_deterministic(sandbox):
    source = "import random; print(random.random(), hash('text'), {'b', 'a', 'c'})"
    first, second = run_checks([source] * 2, workers=2)
    assert first.output == second.output


def test_supervisor_that_dies_is_an_error_and_not_a_wrong_answer(sandbox):
    made = Worker()
    staging = made._staging
    os.kill(made._process.pid, signal.SIGKILL)
    with pytest.raises(StageError, match="its process died"):
        made.run("print(1)", Limits())
    made.close()
    assert not staging.exists()


def test_worker_that_is_closed_in_the_middle_leaves_no_process(sandbox, marked_processes, mark):
    made = Worker()
    thread = threading.Thread(target=lambda: _quietly(made, "while True: pass", mark))
    thread.start()
    while not marked_processes(mark):
        time.sleep(0.02)
    os.killpg(made._process.pid, signal.SIGKILL)
    thread.join()
    made.close()
    deadline = time.monotonic() + 5
    while marked_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked_processes(mark) == []


def _quietly(made: Worker, source: str, mark) -> None:
    with pytest.raises(StageError):
        made.run(source, Limits(open_files=mark, wall_seconds=30))


_WITHOUT_NAMESPACES = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tsugiki.evaluation.sandbox import kernel, root
user, group = os.geteuid(), os.getegid()
kernel.unshare(kernel.NEW_USER)
root.write_identity(1000, user, 1000, group)
open('/proc/sys/user/max_user_namespaces', 'w').write('0')
from tsugiki.errors import DependencyError
from tsugiki.evaluation.sandbox.checks import run_checks
try:
    run_checks(["open('" + sys.argv[2] + "', 'w')"])
except DependencyError as error:
    print(error)
"""


def test_kernel_without_namespaces_refuses_with_a_hint_and_runs_nothing(sandbox, tmp_path):
    import tsugiki

    source = str(Path(tsugiki.__file__).parent.parent)
    proof = tmp_path / "ran"
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NAMESPACES, source, str(proof)], capture_output=True, text=True
    )
    assert "this machine does not allow a sandbox: making namespaces (unshare)" in done.stdout, done.stderr
    assert "Hint:" in done.stdout
    assert "user.max_user_namespaces" in done.stdout
    assert not proof.exists()


_OPEN_FILTER = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tsugiki.evaluation.sandbox import filters, supervisor; "
    "filters.system_call_filter = lambda machine, fork: [(6, 0, 0, 0x7FFF0000)]; "
)


def test_self_test_refuses_a_sandbox_with_a_hole(sandbox, monkeypatch):
    monkeypatch.setattr(worker, "_START", _OPEN_FILTER + "supervisor.main()")
    with pytest.raises(DependencyError, match=r"self-test of the sandbox: SystemExit: socket.* was possible"):
        require_sandbox()


def test_namespaces_hold_without_the_filter(sandbox, monkeypatch, tmp_path, run):
    monkeypatch.setattr(worker, "_START", _OPEN_FILTER + "supervisor.SELF_TEST = ''; supervisor.main()")
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.5)
    made = Worker()
    source = f"""
import ctypes, os, socket
try:
    socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=1)
    raise SystemExit('connected')
except OSError:
    pass
assert [name for _, name in socket.if_nameindex()] in (['lo'], []), socket.if_nameindex()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(None, b'/', None, 32 | 4096, None) == -1  # read-write again
assert libc.umount2(b'/', 2) == -1 and libc.mount(b'proc', b'/tmp', b'proc', 0, None) == -1
assert libc.sethostname(b'x', 1) == -1
for place in ('/etc/passwd', '/proc/1', {str(tmp_path)!r}):
    assert not os.path.exists(place)
if os.fork() == 0:
    os._exit(0)
"""
    verdict = run(made, source)
    made.close()
    assert verdict.passed, verdict
    with server, pytest.raises(TimeoutError):
        server.accept()


def test_machine_without_a_table_of_calls_is_refused(sandbox, monkeypatch):
    start = "import sys; sys.path.insert(0, sys.argv[1]); from tsugiki.evaluation.sandbox import kernel, supervisor; kernel.machine = lambda: 's390x'; supervisor.main()"
    monkeypatch.setattr(worker, "_START", start)
    with pytest.raises(DependencyError, match="no table of system calls for the processor s390x"):
        require_sandbox()
