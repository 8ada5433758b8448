"""A supervisor process and the pipe to it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tsugiki
from tsugiki.errors import DependencyError, StageError
from tsugiki.evaluation.sandbox.inside import Limits
from tsugiki.evaluation.sandbox.libraries import shared_libraries, standard_library
from tsugiki.evaluation.sandbox.supervisor import read_message, write_message

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from tsugiki.evaluation.sandbox.supervisor import main; main()"
)
_PREPARATION_SECONDS = 60.0
_PATIENCE = 20.0
_HINT = (
    "generated programs run only in a sandbox of user namespaces. Allow them: "
    "`sysctl user.max_user_namespaces=10000`; on Ubuntu 24.04 `sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0`; in a container, run it with `--security-opt "
    "seccomp=unconfined` or on the host. Or leave the tasks that run programs out"
)


class Worker:
    """One supervisor, started and ready. Close it after use; it dies with this process in any case.

    Raises DependencyError where this machine can't isolate programs.
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise DependencyError(f"programs can't be isolated on {sys.platform}", hint="use Linux")
        libraries = shared_libraries()
        # Mounted over in the supervisor's own mount namespace; here it stays an empty directory.
        self._staging = Path(tempfile.mkdtemp(prefix="tsugiki-sandbox-")).resolve()
        command = [sys.executable, "-s", "-S", "-B", "-P", "-W", "ignore", "-c", _START]
        self._process = subprocess.Popen(
            [*command, str(Path(tsugiki.__file__).parent.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        order = {
            "staging": str(self._staging),
            "standard_library": str(standard_library()),
            "libraries": libraries,
        }
        try:
            answer = self._ask(order, _PREPARATION_SECONDS)
        except BaseException:
            self.close()
            raise
        if "refused" in answer:
            self.close()
            raise DependencyError(f"this machine does not allow a sandbox: {answer['refused']}", hint=_HINT)

    def run(self, source: str, limits: Limits) -> dict[str, Any]:
        """Run one program; raises StageError where the supervisor has died or hangs."""
        return self._ask({"source": source, "limits": asdict(limits)}, limits.wall_seconds + _PATIENCE)

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise StageError("the sandbox has no pipes", hint="report this")
        try:
            write_message(process.stdin.fileno(), message)
            ready = select.select([process.stdout], [], [], seconds)[0]
            answer = read_message(process.stdout.fileno()) if ready else None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise StageError(
                f"the sandbox gave no answer in {seconds:g} s, or its process died (status {process.poll()})",
                hint="run the same command again; with fewer workers where memory is short",
            )
        return answer

    def close(self) -> None:
        """End the supervisor and all that it started."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._staging.rmdir()
