"""A sandbox for the tests of a file, and what they all do with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsugiki.errors import DependencyError
from tsugiki.evaluation.sandbox.checks import Verdict
from tsugiki.evaluation.sandbox.inside import Limits
from tsugiki.evaluation.sandbox.worker import Worker

SECRET = "the-key-that-no-program-may-read"  # noqa: S105


@pytest.fixture(scope="module")
def sandbox():
    """One worker for all tests here; where the kernel forbids it, only the refusal can be tested."""
    os.environ["TSUGIKI_TEST_SECRET"] = SECRET
    try:
        made = Worker()
    except DependencyError as error:
        pytest.skip(f"no sandbox on this machine: {error.message}")
    finally:
        del os.environ["TSUGIKI_TEST_SECRET"]
    yield made
    made.close()


def run_program(sandbox: Worker, source: str, **limits) -> Verdict:
    return Verdict(**sandbox.run(source, Limits(**limits)))


def run_to_its_end(sandbox: Worker, source: str, **limits) -> Verdict:
    verdict = run_program(sandbox, source, **limits)
    assert verdict.passed, verdict
    return verdict


def processes_with_limit(limit: int) -> list[int]:
    """Processes with this limit on open files, wherever they hang."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            lines = (entry / "limits").read_text().splitlines()
        except OSError:
            continue
        if any(line.startswith("Max open files") and line.split()[3] == str(limit) for line in lines):
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="session")
def run():
    """A function of (sandbox, source, **limits): the verdict."""
    return run_program


@pytest.fixture(scope="session")
def expect_pass():
    """The same, where the program has to end well."""
    return run_to_its_end


@pytest.fixture(scope="session")
def secret():
    """What is in the environment of the process that starts the sandbox."""
    return SECRET


@pytest.fixture(scope="session")
def mark():
    """A number of open files by which a test's programs are told from all others."""
    return 100 + os.getpid() % 800


@pytest.fixture(scope="session")
def marked_processes():
    """A function of that number: the processes that have it as their limit."""
    return processes_with_limit
