"""The last steps before a program, in its own process, and the program. It never returns."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

from tsugiki.evaluation.sandbox import filters, kernel, root

STARTED = b"started "
"""Written before the program runs: what comes after it is the program's word, not ours.

A report is this, then "passed", "failed" or "memory", a space and the detail; or "refused" and why, alone.
"""
_REPORT = 3  # the file descriptor of the report
_THREADS = 64
_STACK_BYTES = 64 << 20
_DETAIL = 400


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    wall_seconds: as HumanEval's harness has it. cpu_seconds: of all its threads. memory_bytes: address space
    of each process. processes: 1 means that it can't start any (threads it can, up to 64). file_bytes: of one
    file; temporary_bytes: of all files in /tmp, which are in memory. output_bytes: kept of what it prints.
    """

    wall_seconds: float = 3.0
    cpu_seconds: int = 4
    memory_bytes: int = 1 << 30
    processes: int = 1
    open_files: int = 64
    file_bytes: int = 8 << 20
    temporary_bytes: int = 16 << 20
    output_bytes: int = 16 << 10


def become_program(source: str, limits: Limits, output: int, report: int) -> None:
    """Be process 1 of the new namespaces: shut every door, run `source`, say how it went, end.

    output and report: the file descriptors to write to.
    """
    _use_descriptors(output, report)
    try:
        _shut_doors(limits)
    except BaseException as error:  # noqa: BLE001 (whatever it is: the program must not run)
        os.write(_REPORT, f"refused {error}".encode())
        os._exit(1)
    _run(source)


def _use_descriptors(output: int, report: int) -> None:
    """0: nothing to read; 1 and 2: the output; 3: the report; no other, above all none that leads outside."""
    output, report = (fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (output, report))
    null = os.open("/dev/null", os.O_RDONLY)
    for descriptor, target in ((null, 0), (output, 1), (output, 2), (report, _REPORT)):
        os.dup2(descriptor, target)
    os.closerange(_REPORT + 1, 65536)


def _shut_doors(limits: Limits) -> None:
    kernel.die_with_parent(signal.SIGKILL)
    os.setsid()
    kernel.set_host_name("sandbox")
    kernel.mount(root.NAME, root.NAME, None, kernel.BIND | kernel.RECURSIVE)
    kernel.enter_root(root.NAME)
    size = f"size={limits.temporary_bytes},nr_inodes=1024,mode=700"
    flags = kernel.NO_SETUID | kernel.NO_DEVICES | kernel.NO_EXECUTION
    kernel.mount("tmpfs", "/tmp", "tmpfs", flags, size)  # noqa: S108
    os.chdir("/tmp")  # noqa: S108 (its own)
    os.umask(0o077)
    os.environ.clear()
    os.environ.update(HOME="/tmp", LANG="C.UTF-8", PATH="")  # noqa: S108
    _limit(limits)
    kernel.drop_privileges()
    kernel.install_filter(filters.system_call_filter(kernel.machine(), fork=limits.processes > 1))


def _limit(limits: Limits) -> None:
    tasks = limits.processes if limits.processes > 1 else _THREADS
    for name, soft, hard in (
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_STACK, min(8 << 20, _STACK_BYTES), _STACK_BYTES),
        (resource.RLIMIT_NPROC, tasks + 1, tasks + 1),  # the monitor counts too
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        most = resource.getrlimit(name)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)  # noqa: PLW2901
        resource.setrlimit(name, (soft, hard))


def _run(source: str) -> None:
    write, leave = os.write, os._exit  # a program may put others in their places
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["program"]
    random.seed(0)  # a fork seeds it anew
    write(_REPORT, STARTED)
    try:
        exec(compile(source, "<program>", "exec"), {"__name__": "__program__"})  # noqa: S102 (that is what we are for)
        sys.stdout.flush()
        said = b"passed "
    except MemoryError:
        said = b"memory MemoryError"
    except BaseException as error:  # noqa: BLE001 (SystemExit is no success either)
        said = f"failed {type(error).__name__}: {_text_of(error)}"[:_DETAIL].encode()
    with suppress(BaseException):  # its output is only for the eye
        sys.stdout.flush()
    try:
        write(_REPORT, said)
    finally:
        leave(0)


def _text_of(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # noqa: BLE001 (the program's own __str__)
        return "?"
