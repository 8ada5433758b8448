"""The root directory that programs see, made once for a supervisor: a few MB of mounts and nothing to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tsugiki.evaluation.sandbox import kernel

NAME = "root"
_SIZE = "size=4m,nr_inodes=4096,mode=755"
_COVERED = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip")
"""Parts of the standard library's directory that a program has no business with."""


def enter_mount_namespace() -> None:
    """A mount namespace of our own, which nothing of what follows leaves.

    Root makes it as it is; anyone else needs a user namespace for that, in which their own user is kept.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        kernel.unshare(kernel.NEW_MOUNTS)
    else:
        kernel.unshare(kernel.NEW_USER | kernel.NEW_MOUNTS)
        write_identity(user, user, group, group)
    kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.PRIVATE)


def write_identity(inside_user: int, user: int, inside_group: int, group: int) -> None:
    """Say which user and group of the parent namespace this process is in its new user namespace."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside_user} {user} 1"),
        ("gid_map", f"{inside_group} {group} 1"),
    ):
        # No file object: its codec may lie where this user can't read any more.
        file = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def build(staging: str, standard_library: str, libraries: Sequence[str]) -> None:
    """Fill `staging`/root and make it read-only; the working directory is `staging` afterwards.

    Holds the standard library at its own path, each shared library at its own with the links that lead to it,
    /dev/null, and an empty /tmp.
    """
    kernel.mount("tmpfs", staging, "tmpfs", kernel.NO_SETUID, _SIZE)
    os.chdir(staging)
    root = Path(NAME)
    for name in ("dev", "tmp"):
        (root / name).mkdir(parents=True)
    for link in ("lib", "lib64", "lib32"):  # where /usr is merged, the loader looks through these
        if Path("/", link).is_symlink():
            (root / link).symlink_to(Path("/", link).readlink())
    mounts = [_bind(root, "/dev/null"), _bind(root, standard_library)]
    for part in _COVERED:
        if Path(standard_library, part).is_dir():
            target = f"{NAME}{standard_library}/{part}"
            kernel.mount("tmpfs", target, "tmpfs", kernel.NO_SETUID | kernel.READ_ONLY, "size=4k,mode=555")
    files = ("/etc/ld.so.cache", *libraries)
    mounts += [_bind(root, path) for path in files if Path(path).is_file()]
    _copy_links(root, [Path(path) for path in libraries])
    kernel.make_read_only(staging, mounts)


def _bind(root: Path, path: str) -> str:
    """Show the file or directory at its own path below `root`, and say where that is."""
    target = root / path.lstrip("/")
    if Path(path).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.mount(path, str(target), None, kernel.BIND)
    return str(target.absolute())


def _copy_links(root: Path, libraries: Sequence[Path]) -> None:
    """The links beside libraries that lead to them: libz.so.1 -> libz.so.1.3.

    Only links that are named like a library up to ".so" are followed: a system has thousands.
    """
    for directory in {path.parent for path in libraries}:
        beside = [path for path in libraries if path.parent == directory]
        stems = {path.name.partition(".so")[0] for path in beside}
        for entry in os.scandir(directory):
            if not entry.is_symlink() or entry.name.partition(".so")[0] not in stems:
                continue
            if Path(entry.path).resolve() in beside:
                link = root / entry.path.lstrip("/")
                link.symlink_to(Path(entry.path).readlink())
