"""Compile the corpus's loops before its processes start: once on a machine, and with a word to whoever waits.

numba compiles a loop when its module is first imported and keeps the code on disk. Left to the first
run, every worker process would compile all of them at the same time, and for a minute nothing would seem to
happen.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tsugiki.artifacts.processes import processor_name, usable_cores

_PACKAGE = "tsugiki.corpus"

GROUPS = (
    ("extract_blocks", "extract_depth"),
    ("prefilter_kernel", "prefilter_text_kernel"),
    ("neardup.kernels", "neardup.heldout_kernels"),
    ("feature_kernels", "word_kernels", "repetition", "expressions"),
    ("kernels", "hosts.kernels"),
    ("identify_kernel",),
)
"""Modules with compiled loops that every corpus needs, heaviest group first; no group waits for another's."""

Tell = Callable[[int, int], None]
"""Told how many of how many groups are compiled."""


def compile_loops(tell: Tell, groups: Sequence[Sequence[str]] = GROUPS) -> bool:
    """Compile what is not compiled yet on this machine, a process a core; True if there was anything to do.

    A module that fails is left to the run, which says why. Where nothing can be written the run compiles as
    it goes.
    """
    mark = _marks() / _key(groups)
    if mark.exists():
        return False
    tell(0, len(groups))
    with ThreadPoolExecutor(min(usable_cores(), len(groups))) as pool:
        begun = [pool.submit(_import, group) for group in groups]
        for done, future in enumerate(as_completed(begun), 1):
            future.result()
            tell(done, len(groups))
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        pass  # compiled all the same; the next run looks again
    return True


def _import(modules: Sequence[str]) -> None:
    names = ", ".join(f"{_PACKAGE}.{name}" for name in modules)
    subprocess.run(
        [sys.executable, "-c", f"import {names}"],
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _marks() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tsugiki" / "compiled"


def _key(groups: Sequence[Sequence[str]]) -> str:
    """Changes with what numba's cache looks at: sources, versions, the processor, and the cache's place."""
    facts = [
        importlib.metadata.version("numba"),
        sys.version,
        platform.machine(),
        processor_name(),  # code compiled for another one is compiled anew
        os.environ.get("NUMBA_CACHE_DIR", ""),
    ]
    for name in (name for group in groups for name in group):
        place = Path(__file__).parent.joinpath(*name.split(".")).with_suffix(".py")
        found = place.stat()
        facts.append(f"{place} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]
