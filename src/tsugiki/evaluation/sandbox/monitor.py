"""One program from outside: its namespaces, its time, what it printed, and how it ended."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from typing import Any

from tsugiki.evaluation.sandbox import kernel, root
from tsugiki.evaluation.sandbox.inside import STARTED, Limits, become_program

_INSIDE = 1000  # the user's and group's number that a program sees
_REPORT_BYTES = 1 << 16
_BLOCK = 1 << 16
_TICK = 0.0005  # seconds between looks for the end of a program that has closed its report

Reply = dict[str, Any]
"""outcome, detail, output, seconds, cpu_seconds."""


def watch(source: str, limits: Limits) -> Reply:
    """Run `source` in fresh namespaces and say how it went. To be called in a process of its own.

    Raises OSError with the step that the kernel forbade.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.ALL_NAMESPACES)
    root.write_identity(_INSIDE, user, _INSIDE, group)
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            become_program(source, limits, output_end, report_end)
        finally:
            os._exit(1)
    os.close(output_end)
    os.close(report_end)
    deadline = begin + limits.wall_seconds
    printed, said, late = _listen(output, report, deadline, limits.output_bytes)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if late or time.monotonic() >= deadline:
            late = True
            os.kill(child, signal.SIGKILL)  # process 1: the kernel ends all others of its namespace with it
            ended = os.waitpid(child, 0)
            break
        time.sleep(_TICK)
    status = ended[1]
    outcome, detail = _verdict(said, status, late=late, limits=limits)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "outcome": outcome,
        "detail": detail,
        "output": printed.decode("utf-8", "backslashreplace"),
        "seconds": time.monotonic() - begin,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def _listen(output: int, report: int, deadline: float, most: int) -> tuple[bytes, bytes, bool]:
    """Read both pipes until the report ends, or the deadline; of the output at most `most` are kept.

    What is printed beyond that is read and dropped: a full pipe would stop the program.
    """
    kept: dict[int, bytes] = {output: b"", report: b""}
    caps = {output: most, report: _REPORT_BYTES}
    poll = select.poll()
    for descriptor in kept:
        poll.register(descriptor, select.POLLIN)
    still = set(kept)
    while report in still:
        left = deadline - time.monotonic()
        if left <= 0:
            return kept[output], kept[report], True
        for descriptor, _ in poll.poll(left * 1000 + 1):
            block = os.read(descriptor, _BLOCK)
            kept[descriptor] += block[: caps[descriptor] - len(kept[descriptor])]
            if not block:
                poll.unregister(descriptor)
                still.discard(descriptor)
    while output in still and poll.poll(0):  # what lies in the pipe when the verdict is there
        block = os.read(output, _BLOCK)
        kept[output] += block[: most - len(kept[output])]
        if not block or len(kept[output]) >= most:
            break
    return kept[output], kept[report], False


def _verdict(said: bytes, status: int, *, late: bool, limits: Limits) -> tuple[str, str]:
    """The program's own word where it is in form, else what its end tells."""
    if late:
        return "timeout", f"still running after {limits.wall_seconds:g} s"
    started = said.startswith(STARTED)
    outcome, _, detail = said.removeprefix(STARTED).decode("utf-8", "backslashreplace").partition(" ")
    if outcome in ({"passed", "failed", "memory"} if started else {"refused"}):
        return outcome, detail
    if not started:
        return "refused", "the process ended before the program began"
    if os.WIFSIGNALED(status):
        return _ended_by(os.WTERMSIG(status), limits)
    return "failed", f"the program ended itself with status {os.waitstatus_to_exitcode(status)}"


def _ended_by(number: int, limits: Limits) -> tuple[str, str]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = used.ru_utime + used.ru_stime
    if number in {signal.SIGXCPU, signal.SIGKILL} and spent >= limits.cpu_seconds:
        return "timeout", f"used {limits.cpu_seconds} s of processor time"
    if number == signal.SIGKILL:
        return "memory", "killed by the kernel, as where memory runs out"
    return "failed", f"ended by signal {number}"
