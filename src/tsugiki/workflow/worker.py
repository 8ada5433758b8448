"""The process in which one stage runs: `python -m tsugiki.workflow.worker STAGE_DIRECTORY`.

A process of its own, so that memory is given back and measured stage by stage, and a crash in native code
or a kill by the system takes down the stage and not the runner. It reads job.json, writes progress to its
standard output as JSON lines, sends everything else that is printed to log.txt, and writes manifest.json
last. When the runner goes away (standard input closes), it exits at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace, open_workspace
from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.manifest import Manifest, content_files, write_manifest
from tsugiki.artifacts.processes import exit_with_parent, peak_memory_bytes
from tsugiki.errors import TsugikiError, storage_errors
from tsugiki.workflow.display import amount
from tsugiki.workflow.kinds import stage_module
from tsugiki.workflow.states import FAILURE, JOB

_PROGRESS_EVERY_SECONDS = 0.1
_CLOCK_EVERY_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Run the stage whose directory is the one argument; the exit status is 0 if it finished."""
    directory = Path(arguments[0])
    exit_with_parent()
    events = _take_standard_output(directory)
    job = read_json(directory / JOB)
    (directory / FAILURE).unlink(missing_ok=True)
    clock = _Clock(directory, job)

    def end(error: TsugikiError) -> NoReturn:
        _tell_failure(directory, error.as_dict(), events)
        os._exit(1)

    workspace = open_workspace(directory, _progress_writer(events, clock), end)
    try:
        with storage_errors(directory):
            outcome = _run_stage(job, workspace)
            _finish(directory, job, outcome, clock)
    except TsugikiError as error:
        workspace.log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 (a clear error needs no traceback)
        _tell_failure(directory, error.as_dict(), events)
        return 1
    except Exception as error:
        workspace.log.exception("unexpected error")
        _tell_failure(directory, _unexpected(error, directory), events)
        return 1
    return 0


def _run_stage(job: Mapping[str, Any], workspace: Workspace) -> Outcome:
    module = stage_module(job["kind"])
    config = module.Config.model_validate(job["config"])
    inputs = Inputs({name: tuple(map(Path, paths)) for name, paths in job["inputs"].items()})
    workspace.log.info("stage %s (%s), attempt %d", job["stage"], job["kind"], job["attempts"])
    return module.run(config, inputs, workspace)


def _finish(directory: Path, job: Mapping[str, Any], outcome: Outcome, clock: _Clock) -> None:
    module = stage_module(job["kind"])
    manifest = Manifest(
        type=module.PRODUCES,
        kind=job["kind"],
        code_version=module.CODE_VERSION,
        identity=job["identity"],
        payload=job["payload"],
        config=job["config"],
        files=content_files(directory),
        counts=dict(outcome.counts),
        facts=dict(outcome.facts),
        provenance={
            **job["provenance"],
            "started": job["started"],
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(clock.seconds(), 2),
            "attempts": job["attempts"],
            "peak_memory_bytes": _peak_memory_bytes(),
        },
    )
    write_manifest(directory, manifest)
    # Only now: a kill while large files are hashed must not cost the checkpoints.
    shutil.rmtree(directory / "work", ignore_errors=True)
    (directory / JOB).unlink(missing_ok=True)


def _peak_memory_bytes() -> int:
    """The largest resident set of this process or of one of its children (Linux counts in KiB)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return max(peak_memory_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


class _Clock:
    """Seconds spent on the stage over all attempts, noted down now and then so that a kill loses little."""

    def __init__(self, directory: Path, job: dict[str, Any]) -> None:
        self._directory = directory
        self._job = job
        self._begun = time.monotonic()
        self._before = float(job["seconds"])
        self._noted = self._begun

    def seconds(self) -> float:
        """Seconds so far, earlier attempts included."""
        return self._before + time.monotonic() - self._begun

    def note(self, progress: str) -> None:
        """Write the seconds and how far the stage is into job.json, every few seconds at most."""
        now = time.monotonic()
        if now - self._noted > _CLOCK_EVERY_SECONDS:
            self._noted = now
            noted = {"seconds": round(self.seconds(), 2), "progress": progress}
            write_json(self._directory / JOB, {**self._job, **noted})


def _progress_writer(events: TextIO, clock: _Clock) -> Any:
    last = 0.0

    def write(done: float, total: float, unit: str, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PROGRESS_EVERY_SECONDS and done < total:
            return
        last = now
        clock.note(f"{done / total:.0%} of {amount(total)} {unit}" if total else f"{amount(done)} {unit}")
        events.write(json.dumps({"done": done, "total": total, "unit": unit, "note": note}) + "\n")
        events.flush()

    return write


def _take_standard_output(directory: Path) -> TextIO:
    """Keep the runner's pipe for progress; let whatever anyone prints go to the log."""
    pipe = os.dup(1)
    log = os.open(directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return os.fdopen(pipe, "w", encoding="utf-8")


def _unexpected(error: Exception, directory: Path) -> dict[str, object]:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return {
        "type": "StageError",
        "message": f"unexpected {type(error).__name__} at {place}: {error}",
        "hint": f"the traceback is in {directory / 'log.txt'}; please report it with that file",
    }


def _tell_failure(directory: Path, failure: dict[str, object], events: TextIO) -> None:
    """Tell the runner through its pipe, and leave the error on disk for `tsugiki status`.

    The pipe first: on a full disk the file can't be written.
    """
    events.write(json.dumps({"failure": failure}) + "\n")
    events.flush()
    with contextlib.suppress(TsugikiError):
        write_json(directory / FAILURE, failure)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except SystemExit as asked:  # training that was asked to end, after a checkpoint
        code = int(asked.code or 0)
    sys.stdout.flush()
    os._exit(code)  # native threads of Arrow and Daft may outlive us; nothing is left to flush
