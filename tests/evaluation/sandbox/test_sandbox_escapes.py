"""Generated programs try to get out of the sandbox, to stay, and to be called right."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tsugiki.evaluation.sandbox import filters, kernel


def test_files_of_the_machine_are_not_there(sandbox, tmp_path, expect_pass, secret):
    (tmp_path / "secret").write_text(secret)
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


def test_nothing_can_be_written_but_in_tmp(sandbox, tmp_path, expect_pass):
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


def test_one_program_leaves_nothing_for_the_next(sandbox, expect_pass):
    expect_pass(
        sandbox,
        "import builtins; open('/tmp/left', 'w').write('x'); builtins.left = 1; import json; json.left = 1",
    )
    expect_pass(
        sandbox,
        "import os, builtins, json\nassert os.listdir('/tmp') == []\nassert not hasattr(builtins, 'left') and not hasattr(json, 'left')",
    )


def test_links_and_descriptors_lead_nowhere(sandbox, expect_pass):
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


def test_files_are_limited_in_size_and_number(sandbox, expect_pass):
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


def test_loopback_of_the_machine_is_out_of_reach(sandbox, expect_pass):
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


def test_no_process_can_be_started(sandbox, expect_pass):
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
def test_processes_end_with_their_program(sandbox, source, outcome, run, expect_pass, marked_processes, mark):
    verdict = run(sandbox, source, processes=16, open_files=mark, wall_seconds=0.7)
    assert verdict.outcome == outcome, verdict
    assert marked_processes(mark) == []
    expect_pass(sandbox, "print('the worker lives')")


def test_marked_processes_sees_a_running_program(sandbox, run, marked_processes, mark):
    # The check above would be worthless if it saw nothing.
    seen = []
    thread = threading.Thread(
        target=lambda: run(sandbox, "import time; time.sleep(0.7)", open_files=mark, wall_seconds=5)
    )
    thread.start()
    while thread.is_alive() and not seen:
        seen = marked_processes(mark)
        time.sleep(0.02)
    thread.join()
    assert seen


def test_number_of_processes_and_threads_is_limited(sandbox, expect_pass):
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


def test_signals_reach_no_one_else(sandbox, expect_pass):
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
def test_every_forbidden_call_is_refused(sandbox, processes, expect_pass):
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


def test_there_is_no_privilege_to_use_or_regain(sandbox, expect_pass):
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


def test_secrets_of_the_environment_are_not_there(sandbox, expect_pass):
    source = """
import ctypes, os
assert dict(os.environ) == {'HOME': '/tmp', 'LANG': 'C.UTF-8', 'PATH': ''}, dict(os.environ)
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
assert libc.getenv(b'TSUGIKI_TEST_secret') is None
assert os.uname().nodename == 'sandbox'
"""
    expect_pass(sandbox, source)


def test_verdict_can_not_be_forged_into_an_abort_or_a_crash(sandbox, run, expect_pass):
    assert run(sandbox, "import os; os.write(3, b'refused x'); os._exit(0)").outcome == "failed"
    assert run(sandbox, "import os; os.write(3, b'nonsense x'); os._exit(0)").outcome == "failed"
    assert run(sandbox, "import os; os.write(3, b'\\xff' * 200000); os._exit(3)").outcome == "failed"
    assert run(sandbox, "import os; os.write(3, b'[' * 60000); os._exit(3)").outcome == "failed"
    assert run(sandbox, "import os; os.close(3)").outcome == "failed"
    assert run(sandbox, "import os; os.closerange(0, 100)").outcome == "failed"
    expect_pass(sandbox, "print('still here')")
