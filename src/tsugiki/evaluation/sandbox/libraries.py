"""Which shared libraries Python's own modules need, found by loading them all."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from tsugiki.errors import DependencyError

_PROBE = """
import importlib, json, os, sys
for name in sorted(os.listdir(sys.argv[1])):
    try:
        importlib.import_module(name.split(".")[0])
    except BaseException:
        pass
lines = open("/proc/self/maps").read().splitlines()
print(json.dumps(sorted({line.split(None, 5)[5] for line in lines if line.count("/") and ".so" in line})))
"""


@cache
def standard_library() -> Path:
    """The directory of Python's own modules, that of the interpreter and not of a virtual environment."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Path(
        sysconfig.get_path(
            "stdlib", vars={"installed_base": sys.base_prefix, "py_version_short": version[6:]}
        )
    )


@cache
def shared_libraries() -> tuple[str, ...]:
    """The real paths of all shared libraries that Python's extension modules load, sorted.

    Raises DependencyError where Python can't be started.
    """
    extensions = standard_library() / "lib-dynload"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-W", "ignore", "-c", _PROBE, str(extensions)],
            capture_output=True,
            check=True,
            timeout=120,
            env={},
            cwd="/",
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise DependencyError(
            f"Python's own modules could not be looked at before programs are run: {error}",
            hint=f"try `{sys.executable} -I -S -c 'import json'`",
        ) from error
    inside = str(standard_library()) + "/"
    return tuple(path for path in found if not path.startswith(inside) and Path(path).is_file())
