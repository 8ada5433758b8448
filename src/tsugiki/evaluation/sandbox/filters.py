"""The system calls that a generated program may not make, as a seccomp filter (classic BPF).

A list of what is forbidden, on top of namespaces, and not of what is allowed: a new C library may use a new
call for an old purpose. Numbers: arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import errno

Instruction = tuple[int, int, int, int]

_ABSENT = -1
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# name: (x86_64, aarch64)
FORBIDDEN: dict[str, tuple[int, int]] = {
    # programs, and other processes
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "prctl": (157, 167),  # could let go of the signal that ends it with its monitor
    "personality": (135, 92),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "mknod": (133, _ABSENT),
    "mknodat": (259, 33),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "fanotify_init": (300, 262),
    # the network: its namespace has none, and no socket can be made
    "socket": (41, 198),
    # memory that no limit of ours counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # large parts of the kernel that had holes before
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, _ABSENT),
    "ioperm": (173, _ABSENT),
    "modify_ldt": (154, _ABSENT),
    "vhangup": (153, 58),
}
_FORK = {"fork": (57, _ABSENT), "vfork": (58, _ABSENT)}
_CLONE, _CLONE3 = (56, 220), (435, 435)

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_K | BPF_JEQ, BPF_JGE, BPF_JSET
_RETURN = 0x06  # BPF_RET | BPF_K
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, low word first
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NAMESPACE_FLAGS = 0x7E020000  # every CLONE_NEW* but CLONE_NEWTIME, which clone takes for an exit signal
_THREAD = 0x00010000  # CLONE_THREAD
_X32 = 0x40000000  # x86's second numbering


def supported(machine: str) -> bool:
    """Whether there is a table of system calls for this processor."""
    return machine in _ARCHITECTURES


def system_call_filter(machine: str, *, fork: bool) -> list[Instruction]:
    """The filter as (code, jump if true, if false, value). fork: may it start processes, or only threads?

    Forbidden calls fail with EPERM; clone3, whose flags lie in memory, with ENOSYS, so that the C library
    takes clone. A call of another processor's numbering ends the program.
    """
    column, architecture = _ARCHITECTURES[machine]
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    rules: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        refuse,
    ]
    forbidden = FORBIDDEN if fork else FORBIDDEN | _FORK
    for numbers in forbidden.values():
        if numbers[column] != _ABSENT:
            rules += [(_EQUAL, 0, 1, numbers[column]), refuse]
    rules += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    inspect: list[Instruction] = [
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NAMESPACE_FLAGS),
        refuse,
    ]
    if not fork:
        inspect += [(_ANY_BIT, 1, 0, _THREAD), refuse]
    inspect.append((_RETURN, 0, 0, _ALLOW))
    rules += [(_EQUAL, 0, len(inspect), _CLONE[column]), *inspect, (_RETURN, 0, 0, _ALLOW)]
    return rules
