"""Generated programs try to get out of the sandbox, to stay, to eat the machine, and to be called right."""

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
from tsugiki.evaluation.sandbox import filters, kernel, worker
from tsugiki.evaluation.sandbox.checks import (
    Verdict,
    human_eval_program,
    require_sandbox,
    run_checks,
)
from tsugiki.evaluation.sandbox.inside import Limits
from tsugiki.evaluation.sandbox.worker import Worker

SECRET = "the-key-that-no-program-may-read"  # noqa: S105


@pytest.fixture(scope="module")
def sandbox():
    """One worker for all tests here; where the kernel forbids it, only the refusal can be tested."""
    os.environ["TSUGIKI_TEST_SECRET"] = SECRET
    try:
        made = Worker()
    except DependencyError as error:
        pytest.skip(f"no sandbox on this machine: {error.message}")
    finally:
        del os.environ["TSUGIKI_TEST_SECRET"]
    yield made
    made.close()


def run(sandbox: Worker, source: str, **limits) -> Verdict:
    return Verdict(**sandbox.run(source, Limits(**limits)))


def expect_pass(sandbox: Worker, source: str, **limits) -> Verdict:
    verdict = run(sandbox, source, **limits)
    assert verdict.passed, verdict
    return verdict


# --- what ends how -------------------------------------------------------------------------------------


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
def test_program_ends_as_it_does(sandbox, source, outcome, detail):
    verdict = run(sandbox, source)
    assert verdict.outcome == outcome, verdict
    assert detail in verdict.detail


def test_output_is_kept_up_to_its_cap_and_never_blocks_the_program(sandbox):
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
def test_program_that_does_not_end_is_ended(sandbox, source):
    begin = time.monotonic()
    assert run(sandbox, source, wall_seconds=0.5).outcome in {"timeout", "memory"}
    assert time.monotonic() - begin < 5


def test_processor_time_is_limited_too(sandbox):
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
def test_program_that_eats_memory_is_stopped(sandbox, source):
    assert run(sandbox, source, memory_bytes=1 << 28, wall_seconds=10).outcome == "memory"


# --- escapes: files ------------------------------------------------------------------------------------


def test_files_of_the_machine_are_not_there(sandbox, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    places = ["/etc/passwd", "/etc/shadow", "/proc", "/sys", "/bin/sh", "/usr/bin/python3", "/var", "/home"]
    places += [
        str(Path.home()),
        str(Path.home() / ".bashrc"),
        str(tmp_path),
        str(tmp_path / "secret"),
        str(Path.cwd()),
    ]
    python = str(Path(os.path.realpath(sys.executable)))
    source = f"""
import os
for place in {[*places, python]!r}:
    try:
        found = os.listdir(place) if os.path.isdir(place) else open(place).read()
    except OSError:
        continue
    # A directory on the way to the standard library: it holds that way and nothing else.
    assert isinstance(found, list) and len(found) == 1, (place, found)
programs = [os.path.join(d, f) for d, _, fs in os.walk('/') for f in fs
            if 'lib-dynload' not in d and '.so' not in f and not f.endswith('.py') and os.access(os.path.join(d, f), os.X_OK)]
assert not [p for p in programs if '/bin/' in p], programs
"""
    expect_pass(sandbox, source)


def test_nothing_can_be_written_but_in_tmp(sandbox, tmp_path):
    source = f"""
import os
written = []
for place in [d for d, _, _ in os.walk('/')] + [{str(tmp_path)!r}]:
    for act in (lambda: open(place + '/x', 'w'), lambda: os.mkdir(place + '/y'), lambda: os.symlink('a', place + '/z'),
                lambda: os.chmod(place, 0o777)):
        try:
            act()
            written.append(place)
        except OSError:
            pass
assert set(os.path.join('/', *p.split('/')[:2]) for p in written) == {{'/tmp'}}, written
import json
for act in (lambda: open(json.__file__, 'a'), lambda: os.remove(json.__file__), lambda: os.rename(json.__file__, '/tmp/j')):
    try:
        act()
        raise SystemExit('changed the standard library')
    except OSError:
        pass
"""
    expect_pass(sandbox, source)
    assert list(tmp_path.iterdir()) == []


def test_one_program_leaves_nothing_for_the_next(sandbox):
    expect_pass(
        sandbox,
        "import builtins; open('/tmp/left', 'w').write('x'); builtins.left = 1; import json; json.left = 1",
    )
    expect_pass(
        sandbox,
        "import os, builtins, json\nassert os.listdir('/tmp') == []\nassert not hasattr(builtins, 'left') and not hasattr(json, 'left')",
    )


def test_links_and_descriptors_lead_nowhere(sandbox):
    source = """
import os
os.symlink('/etc/passwd', 'a'); os.symlink('../' * 30 + 'etc/passwd', 'b'); os.symlink('/', 'c')
for name in ('a', 'b', 'c/etc/passwd', '../' * 40 + 'etc/passwd', '/dev/fd/0/../../etc/passwd'):
    try:
        open(name).read()
        raise SystemExit(name)
    except OSError:
        pass
opened = []
for descriptor in range(0, 70000):
    try:
        os.fstat(descriptor)
        opened.append(descriptor)
    except OSError:
        pass
assert opened == [0, 1, 2, 3], opened
import stat
assert all(not stat.S_ISDIR(os.fstat(one).st_mode) for one in opened)
top = os.open('/', os.O_RDONLY)
for _ in range(20):
    top = os.open('..', os.O_RDONLY, dir_fd=top)
    assert 'proc' not in os.listdir(top) and 'home' not in os.listdir(top)
"""
    expect_pass(sandbox, source)


def test_files_are_limited_in_size_and_number(sandbox):
    source = """
import errno, os
def until_error(act):
    for turn in range(100000):
        try:
            act(turn)
        except OSError as error:
            return error.errno
one = open('one', 'wb')
assert until_error(lambda turn: (one.write(b'x' * (1 << 20)), one.flush())) == errno.EFBIG
os.remove('one')
def fill(turn):
    with open(f'f{turn}', 'wb') as file:
        file.write(b'x' * (1 << 20))
assert until_error(fill) == errno.ENOSPC
for name in os.listdir(): os.remove(name)
assert until_error(lambda turn: open(f'g{turn}', 'w').close()) == errno.ENOSPC
kept = []
assert until_error(lambda turn: kept.append(os.dup(0))) == errno.EMFILE
"""
    expect_pass(sandbox, source, wall_seconds=20)


# --- escapes: network, processes, kernel ----------------------------------------------------------------


def test_loopback_of_the_machine_is_out_of_reach(sandbox):
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.5)
    port = server.getsockname()[1]
    source = f"""
import socket, ctypes, urllib.request
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, 17):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            raise SystemExit('a socket')
        except PermissionError:
            pass
assert ctypes.CDLL(None).socket(2, 1, 0) == -1
try:
    urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=1)
    raise SystemExit('an answer')
except OSError:
    pass
"""
    expect_pass(sandbox, source)
    with server, pytest.raises(TimeoutError):
        server.accept()


def test_no_process_can_be_started(sandbox):
    source = """
import os, subprocess, sys, threading
for act in (os.fork, os.forkpty, lambda: subprocess.run(['ls']), lambda: subprocess.run([sys.executable]),
            lambda: os.posix_spawn('/bin/true', ['true'], {}), lambda: os.execv(sys.executable, ['python']), lambda: os.system('ls') and 1 / 0):
    try:
        act()
        raise SystemExit('started')
    except (OSError, ZeroDivisionError):
        pass
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()  # threads are fine
"""
    expect_pass(sandbox, source)


def marked_processes(limit: int) -> list[int]:
    """Processes with this limit on open files, wherever they hang."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            lines = (entry / "limits").read_text().splitlines()
        except OSError:
            continue
        if any(line.startswith("Max open files") and line.split()[3] == str(limit) for line in lines):
            found.append(int(entry.name))
    return found


MARK = 100 + os.getpid() % 800


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", "timeout"),
        (
            "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  time.sleep(60)\n os._exit(0)",
            "passed",
        ),
        (
            "import os, time\nfor _ in range(5):\n if os.fork() == 0:\n  while True: pass\nos._exit(0)",
            "failed",
        ),
    ],
    ids=["fork-bomb", "daemon", "orphans"],
)
def test_processes_end_with_their_program(sandbox, source, outcome):
    verdict = run(sandbox, source, processes=16, open_files=MARK, wall_seconds=0.7)
    assert verdict.outcome == outcome, verdict
    assert marked_processes(MARK) == []
    expect_pass(sandbox, "print('the worker lives')")


def test_marked_processes_sees_a_running_program(sandbox):
    # The check above would be worthless if it saw nothing.
    seen = []
    thread = threading.Thread(
        target=lambda: run(sandbox, "import time; time.sleep(0.7)", open_files=MARK, wall_seconds=5)
    )
    thread.start()
    while thread.is_alive() and not seen:
        seen = marked_processes(MARK)
        time.sleep(0.02)
    thread.join()
    assert seen


def test_number_of_processes_and_threads_is_limited(sandbox):
    source = """
import os, time
made = 0
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        made += 1
except OSError:
    pass
assert 3 <= made <= 8, made
"""
    expect_pass(sandbox, source, processes=8)
    threads = """
import threading
wait = threading.Event()
made = 0
try:
    for _ in range(1000):
        threading.Thread(target=wait.wait, daemon=True).start()
        made += 1
except RuntimeError:
    pass
assert made <= 64, made
"""
    expect_pass(sandbox, threads)


def test_signals_reach_no_one_else(sandbox):
    me = os.getpid()
    source = f"""
import os, signal
assert os.getpid() == 1 and os.getppid() == 0
for target in ({me}, {sandbox._process.pid}, 2, -1):
    for number in (signal.SIGKILL, signal.SIGTERM, 0):
        try:
            os.kill(target, number)
            raise SystemExit(f'sent to {{target}}')
        except ProcessLookupError:
            pass
os.killpg(0, 0)
"""
    expect_pass(sandbox, source)
    assert sandbox._process.poll() is None


@pytest.mark.parametrize("processes", [1, 4])
def test_every_forbidden_call_is_refused(sandbox, processes):
    column = ["x86_64", "aarch64"].index(kernel.machine())
    numbers = {name: one[column] for name, one in filters.FORBIDDEN.items() if one[column] >= 0}
    assert len(numbers) > 50
    source = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {numbers!r}.items():
    assert libc.syscall(number, 0, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM, name
clone, clone3 = {filters._CLONE[column]}, {filters._CLONE3[column]}
assert libc.syscall(clone3, 0, 0) == -1 and ctypes.get_errno() == errno.ENOSYS
for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
    assert libc.syscall(clone, flag | 17, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM, hex(flag)
if {column} == 0:
    assert libc.syscall(0x40000000 | 39) == -1  # x32's getpid
"""
    expect_pass(sandbox, source, processes=processes)


def test_there_is_no_privilege_to_use_or_regain(sandbox):
    source = """
import ctypes, os
assert os.getuid() == os.geteuid() == 1000 and os.getgroups() in ([], [65534])
for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.chroot('/tmp'), lambda: os.nice(-5)):
    try:
        act()
        raise SystemExit('allowed')
    except OSError:
        pass
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capget(header, data) == 0 and list(data) == [0] * 6
import resource
for name in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
    try:
        resource.setrlimit(name, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        raise SystemExit('raised a limit')
    except (ValueError, OSError):
        pass
"""
    expect_pass(sandbox, source)


def test_secrets_of_the_environment_are_not_there(sandbox):
    source = """
import ctypes, os
assert dict(os.environ) == {'HOME': '/tmp', 'LANG': 'C.UTF-8', 'PATH': ''}, dict(os.environ)
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
assert libc.getenv(b'TSUGIKI_TEST_SECRET') is None
assert os.uname().nodename == 'sandbox'
"""
    expect_pass(sandbox, source)


def test_verdict_can_not_be_forged_into_an_abort_or_a_crash(sandbox):
    assert run(sandbox, "import os; os.write(3, b'refused x'); os._exit(0)").outcome == "failed"
    assert run(sandbox, "import os; os.write(3, b'nonsense x'); os._exit(0)").outcome == "failed"
    assert run(sandbox, "import os; os.write(3, b'\\xff' * 200000); os._exit(3)").outcome == "failed"
    assert run(sandbox, "import os; os.write(3, b'[' * 60000); os._exit(3)").outcome == "failed"
    assert run(sandbox, "import os; os.close(3)").outcome == "failed"
    assert run(sandbox, "import os; os.closerange(0, 100)").outcome == "failed"
    expect_pass(sandbox, "print('still here')")


# --- run_checks ----------------------------------------------------------------------------------------

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


def test_worker_that_is_closed_in_the_middle_leaves_no_process(sandbox):
    made = Worker()
    thread = threading.Thread(target=lambda: _quietly(made, "while True: pass"))
    thread.start()
    while not marked_processes(MARK):
        time.sleep(0.02)
    os.killpg(made._process.pid, signal.SIGKILL)
    thread.join()
    made.close()
    deadline = time.monotonic() + 5
    while marked_processes(MARK) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked_processes(MARK) == []


def _quietly(made: Worker, source: str) -> None:
    with pytest.raises(StageError):
        made.run(source, Limits(open_files=MARK, wall_seconds=30))


# --- refusal -------------------------------------------------------------------------------------------

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


def test_namespaces_hold_without_the_filter(sandbox, monkeypatch, tmp_path):
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
