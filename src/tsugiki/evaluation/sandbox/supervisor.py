"""The process that prepares a root directory once and then runs programs, one after another.

It is started with the standard library alone and an empty environment, and holds nothing worth reading: a
program's process is a copy of it, with everything shut. Messages are JSON after their length in four bytes.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

from tsugiki.evaluation.sandbox import filters, kernel, root
from tsugiki.evaluation.sandbox.inside import Limits
from tsugiki.evaluation.sandbox.monitor import watch

_NOBODY = 65534
_PATIENCE = 10.0  # seconds that a monitor has beyond its program's
_HEADER = struct.Struct("<I")

SELF_TEST = """
import os
def forbidden(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return
    raise SystemExit(f"{call.__name__}{arguments} was possible")
import socket, ctypes, hashlib, sqlite3, decimal
for path in ("/etc/passwd", "/proc/self/status", "/sys/kernel", "/bin/sh"):
    forbidden(os.stat, path)
forbidden(open, "/written", "w")
forbidden(open, "/tmp/../dev/written", "w")
forbidden(socket.socket)
forbidden(os.execv, "/bin/true", ["true"])
assert os.getuid() != 0 and os.getpid() == 1 and os.getppid() == 0 and os.getcwd() == "/tmp"
assert set(os.environ) <= {"HOME", "LANG", "PATH"}
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == -1 and libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == -1
open("/tmp/fine", "w").write("fine")
"""
"""Run before anything else: a sandbox that lets one of these through does not run programs."""


def read_message(descriptor: int) -> Any:
    """The next message, None where the other side has closed."""
    header = _read(descriptor, _HEADER.size)
    return json.loads(_read(descriptor, _HEADER.unpack(header)[0])) if header else None


def _read(descriptor: int, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            return b""
        parts += part
    return parts


def write_message(descriptor: int, message: Any) -> None:
    """Send a message whole."""
    data = json.dumps(message).encode()
    data = _HEADER.pack(len(data)) + data
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> None:
    """Prepare as the first message says, answer "ready" or what was forbidden, then run until told to end."""
    order = read_message(0)
    if order is None:
        return
    try:
        _prepare(order)
    except OSError as error:
        write_message(1, {"refused": error.strerror or str(error)})
        return
    tested = run(SELF_TEST, Limits())
    if tested["outcome"] != "passed":
        write_message(1, {"refused": f"the self-test of the sandbox: {tested['detail']}"})
        return
    write_message(1, {"ready": True})
    while (request := read_message(0)) is not None:
        write_message(1, run(request["source"], Limits(**request["limits"])))


def _prepare(order: dict[str, Any]) -> None:
    if not filters.supported(kernel.machine()):
        raise OSError(0, f"there is no table of system calls for the processor {kernel.machine()}")
    _import_often_used()
    root.enter_mount_namespace()
    root.build(order["staging"], order["standard_library"], order["libraries"])
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        kernel.stay_readable()


def _import_often_used() -> None:
    """Load what most generated programs import, once."""
    import bisect  # noqa: F401
    import collections  # noqa: F401
    import copy  # noqa: F401
    import datetime as dt  # noqa: F401
    import decimal  # noqa: F401
    import fractions  # noqa: F401
    import functools  # noqa: F401
    import hashlib  # noqa: F401
    import heapq  # noqa: F401
    import itertools  # noqa: F401
    import math  # noqa: F401
    import operator  # noqa: F401
    import random  # noqa: F401
    import re  # noqa: F401
    import statistics  # noqa: F401
    import string  # noqa: F401
    import typing  # noqa: F401


def run(source: str, limits: Limits) -> dict[str, Any]:
    """Run one program in a process of its own, and read its monitor's reply."""
    answer, answer_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(answer)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)  # the pipes to Tsugiki are not for what comes
            os.dup2(null, 1)
            write_message(answer_end, watch(source, limits))
        except BaseException as error:  # noqa: BLE001 (told to the supervisor)
            write_message(answer_end, _refused(str(error)))
        os._exit(0)
    os.close(answer_end)
    reply = _reply(answer, time.monotonic() + limits.wall_seconds + _PATIENCE)
    os.close(answer)
    if reply is None:
        os.kill(child, 9)
    os.waitpid(child, 0)
    return reply or _refused("the program's monitor did not answer")


def _reply(descriptor: int, deadline: float) -> dict[str, Any] | None:
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            part = os.read(descriptor, 1 << 20)
            if not part:
                break
            data += part
    try:
        return json.loads(data[_HEADER.size :])
    except ValueError:
        return None


def _refused(detail: str) -> dict[str, Any]:
    return {"outcome": "refused", "detail": detail, "output": "", "seconds": 0.0, "cpu_seconds": 0.0}
