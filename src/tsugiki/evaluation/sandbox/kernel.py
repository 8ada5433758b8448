"""System calls that Python 3.11 has no function for, through the C library. Linux only.

Each raises OSError with the name of the step, so that a refusal can say what was forbidden. Numbers are
those of linux/sched.h, linux/mount.h, linux/prctl.h and linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)

NEW_MOUNTS = 0x00020000
NEW_CGROUP = 0x02000000
NEW_HOST_NAME = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PROCESSES = 0x20000000
NEW_NETWORK = 0x40000000
ALL_NAMESPACES = NEW_USER | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_HOST_NAME | NEW_CGROUP

READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTION = 1, 2, 4, 8
REMOUNT, BIND, RECURSIVE, PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2  # umount2
_KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # statvfs's bit -> mount's bit

_DEATH_SIGNAL, _DUMPABLE, _DROP_BOUND, _NO_NEW_PRIVILEGES = 1, 4, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITIES = 64


def machine() -> str:
    """The processor's name as in the tables of system calls: x86_64 or aarch64."""
    return platform.machine()


def _checked(result: int, step: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "making namespaces (unshare)")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or change a mount (mount(2))."""
    arguments = [None if part is None else os.fsencode(part) for part in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data else None)
    _checked(result, f"mounting {target}")


def make_read_only(directory: str, mounts: Sequence[str]) -> None:
    """Make every mount at and under `directory` read-only; `mounts` are their paths.

    In one call where the kernel has it (mount_setattr, Linux 5.12), which leaves no moment between mounts.
    What a mount already forbids stays so.
    """
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SETUID, 0, 0, 0)
    at_here, recursive = ctypes.c_int(-100), ctypes.c_uint(0x8000)
    number, size = ctypes.c_long(442), ctypes.c_size_t(ctypes.sizeof(attributes))
    path = os.fsencode(directory)
    if _libc.syscall(number, at_here, path, recursive, attributes, size) == 0:
        return
    for mounted in (*mounts, directory):
        there = os.statvfs(mounted).f_flag
        kept = sum(flag for bit, flag in _KEPT_FLAGS.items() if there & bit)
        mount(None, mounted, None, REMOUNT | BIND | READ_ONLY | NO_SETUID | kept)


def enter_root(directory: str) -> None:
    """Make the mount at `directory` the root, and let go of the old one."""
    os.chdir(directory)
    number = _PIVOT_ROOT[machine()]
    _checked(_libc.syscall(ctypes.c_long(number), b".", b"."), "changing the root (pivot_root)")
    _checked(_libc.umount2(b".", ctypes.c_int(_DETACH)), "leaving the old root (umount2)")
    os.chdir("/")


def set_host_name(name: str) -> None:
    """The host's name in this UTS namespace."""
    _checked(_libc.sethostname(name.encode(), ctypes.c_size_t(len(name))), "naming the host")


def _prctl(option: int, first: int, step: str, second: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    return _checked(
        _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero), step
    )


def die_with_parent(signal: int) -> None:
    """Get `signal` when the parent process ends."""
    _prctl(_DEATH_SIGNAL, signal, "PR_SET_PDEATHSIG")


def stay_readable() -> None:
    """Own the files in /proc/self again after a change of user; uid_map has to be written there."""
    _prctl(_DUMPABLE, 1, "PR_SET_DUMPABLE")


def drop_privileges() -> None:
    """Give up every capability for good, and all ways to get one back (setuid programs and the like)."""
    for capability in range(_CAPABILITIES):
        try:
            _prctl(_DROP_BOUND, capability, "PR_CAPBSET_DROP")
        except OSError:  # past the last capability of this kernel
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, nothing), "dropping capabilities (capset)")
    _prctl(_NO_NEW_PRIVILEGES, 1, "PR_SET_NO_NEW_PRIVS")


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def install_filter(instructions: Sequence[tuple[int, int, int, int]]) -> None:
    """Put a seccomp filter on this process and its children; needs no_new_privs."""
    array = (_Instruction * len(instructions))(*(_Instruction(*one) for one in instructions))
    program = _Program(len(instructions), ctypes.cast(array, ctypes.POINTER(_Instruction)))
    address = ctypes.addressof(program)
    _prctl(22, 2, "filtering system calls (seccomp)", address)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
