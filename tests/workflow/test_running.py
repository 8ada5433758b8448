"""Running: reuse, drift, kills, full disks, damage. Every stage here is a real one, in a real process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tsugiki.artifacts.manifest import read_manifest
from tsugiki.errors import DataError, DriftError, InputError, RecipeError, StageError, StorageError
from tsugiki.workflow.states import is_locked, locked


@pytest.fixture
def copy(finished, project):
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished.root / "runs", project.root / "runs")
    return project


@pytest.fixture
def begun(copy):
    """A copy of the finished run with its first stage only: the corpus need not be made for every test."""
    for name in ("base", "more"):
        shutil.rmtree(copy.directory / name)
    return copy


def test_run_makes_every_stage_and_its_manifest(finished):
    assert set(finished.states().values()) == {"done"}
    manifest = read_manifest(finished.directory / "base")
    assert manifest.payload["inputs"] == {"pages": read_manifest(finished.directory / "pages").identity}
    made = manifest.provenance
    assert made["attempts"] == 1
    assert made["peak_memory_bytes"] > 50e6
    assert made["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert not (finished.directory / "base" / "work").exists()
    assert not (finished.directory / "base" / "job.json").exists()


def test_run_again_does_nothing(copy):
    before = copy.hashes()
    result = copy.run()
    assert (result.ran, result.reused) == ([], ["pages", "base", "more"])
    assert copy.hashes() == before


def test_run_in_another_place_gives_the_same_identities_and_bytes(finished, project):
    project.run(until="base")
    mine, theirs = project.hashes(), finished.hashes()
    assert mine == {name: digest for name, digest in theirs.items() if not name.startswith("more/")}
    assert project.plan().identities["more"].hash == finished.plan().identities["more"].hash


def test_run_only_a_stage_whose_inputs_are_missing_is_refused(project):
    with pytest.raises(InputError, match='"base" reads "pages", which is waiting'):
        project.run(only="base")


def test_run_until_an_unknown_stage_suggests_the_nearest(project):
    with pytest.raises(InputError, match='did you mean "base"'):
        project.run(until="bas")


def test_digests_of_sources_are_remembered_and_never_trusted_for_a_changed_file(copy):
    known = json.loads((copy.directory / "digests.json").read_text())
    ((path, (size, _, digest)),) = known.items()
    assert path == str((copy.root / "pages.jsonl").resolve()) or path.endswith("/pages.jsonl")
    assert size == (copy.root / "pages.jsonl").stat().st_size
    assert digest in json.dumps(read_manifest(copy.directory / "pages").payload["inputs"])
    with (copy.root / "pages.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"text": "新しい頁です。"}')
    assert copy.states()["pages"] == "drifted"


def test_execution_changes_are_not_drift(copy):
    copy.edit("checkpoint_every_steps: 5", "checkpoint_every_steps: 2")
    assert set(copy.states().values()) == {"done"}


def test_moved_and_touched_input_is_not_drift(copy):
    (copy.root / "elsewhere").mkdir()
    (copy.root / "pages.jsonl").rename(copy.root / "elsewhere" / "pages.jsonl")
    copy.edit("source: pages.jsonl", "source: elsewhere/pages.jsonl")
    assert set(copy.states().values()) == {"done"}


def test_drift_is_refused_with_the_fields_that_differ(copy):
    copy.edit("learning_rate: 3e-3", "learning_rate: 2e-3")
    before = copy.hashes()
    with pytest.raises(DriftError) as caught:
        copy.run()
    said = str(caught.value)
    assert "config.learning_rate: 0.003 -> 0.002" in said
    assert '(stage "base" changed)' in said
    assert all(option in caught.value.hint for option in ("--rebuild", "--fork NAME", "--accept"))
    assert caught.value.exit_code == 3
    assert copy.hashes() == before
    assert copy.states() == {"pages": "done", "base": "drifted", "more": "drifted"}


def test_drift_of_a_source_file_reaches_every_stage(copy):
    with (copy.root / "pages.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"text": "新しい頁です。"}')
    with pytest.raises(DriftError, match=r"inputs\.pages\.jsonl\.pages\.jsonl: "):
        copy.run()
    assert set(copy.states().values()) == {"drifted"}


def test_drift_rebuilt_makes_only_what_changed(copy):
    copy.edit("tokens: 4k", "tokens: 5k")
    result = copy.run(rebuild=True)
    assert (result.ran, result.reused) == (["more"], ["pages", "base"])
    assert set(copy.states().values()) == {"done"}


def test_drift_accepted_is_written_down_and_reaches_readers(copy):
    copy.edit("learning_rate: 3e-3", "learning_rate: 2e-3")
    before = copy.hashes()
    assert copy.run(accept=True).ran == []
    accepted = read_manifest(copy.directory / "base").accepted
    assert accepted[0]["differences"] == ["config.learning_rate: 0.003 -> 0.002"]
    assert copy.hashes() == before
    assert set(copy.states().values()) == {"done"}


def test_drift_forked_leaves_the_old_run_and_takes_over_what_fits(copy):
    copy.edit("tokens: 4k", "tokens: 5k")
    before = read_manifest(copy.directory / "more")
    result = copy.run(fork="other")
    assert result.directory == copy.root / "runs" / "other"
    assert (result.ran, result.reused) == (["more"], ["pages", "base"])
    assert read_manifest(copy.directory / "more") == before
    with pytest.raises(InputError, match="exists already"):
        copy.run(fork="other")
    with pytest.raises(InputError, match="not a name"):
        copy.run(fork="../other")
    copy.recipe, copy.directory = result.directory / "recipe.yaml", result.directory
    assert copy.graph().recipe.name == "other"
    assert copy.run().reused == ["pages", "base", "more"]


def test_damaged_stage_is_refused_until_rebuilt(copy):
    weights = copy.directory / "more" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert copy.states()["more"] == "damaged"
    with pytest.raises(DriftError, match=r"model\.safetensors has \d+ bytes"):
        copy.run()
    with pytest.raises(InputError, match="not whole"):
        copy.run(accept=True)
    assert copy.run(rebuild=True).ran == ["more"]


def test_too_small_corpus_is_refused_and_goes_on_after_mending(begun):
    begun.edit(
        "max_epochs: 50\n    threads: 1\n    checkpoint", "max_epochs: 0.1\n    threads: 1\n    checkpoint"
    )
    with pytest.raises((DataError, RecipeError)) as caught:
        begun.run()
    assert "epochs" in str(caught.value)
    assert "Hint: " in str(caught.value)
    begun.edit("max_epochs: 0.1\n", "max_epochs: 50\n")
    assert "base" in begun.run(until="base").ran


def test_failed_stage_says_so_in_its_status_and_leaves_no_manifest(project):
    project.edit("language: ja, rules", "language: de, rules")
    with pytest.raises(DataError, match="pages: ") as caught:
        project.run()
    assert caught.value.hint
    plan = project.plan()
    assert plan.stage("pages").standing.state == "failed"
    assert plan.stage("pages").standing.detail
    assert not list(project.directory.rglob("manifest.json"))
    assert not list(project.directory.rglob("*.partial"))
    project.edit("language: de, rules", "language: ja, rules")
    assert project.run(until="pages").ran == ["pages"]


RUNNER = """
import sys; from pathlib import Path
from tsugiki.workflow.display import Silent
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.recipe import load_recipe
from tsugiki.workflow.running import RunOptions, run_recipe
run_recipe(build_graph(load_recipe(Path(sys.argv[1]))), Path(sys.argv[2]), RunOptions(), Silent())
"""


def start(project):
    command = [sys.executable, "-c", RUNNER, str(project.recipe), str(project.directory)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_run_killed_takes_its_worker_along_and_goes_on(begun, finished):
    runner = start(begun)
    checkpoints = begun.directory / "base" / "work"
    wait_for(lambda: any(checkpoints.glob("checkpoint-*[0-9]")) or (begun.directory / "more").exists())
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    wait_for(lambda: not is_locked(begun.directory), seconds=10)  # the worker died with its runner
    assert begun.states()["base"] in {"interrupted", "done"}
    begun.run()
    assert begun.hashes() == finished.hashes()
    assert read_manifest(begun.directory / "base").provenance["attempts"] == 2


def test_worker_killed_is_an_error_that_says_what_to_do(begun):
    def kill_worker():
        job = begun.directory / "base" / "job.json"
        wait_for(lambda: job.exists() and any((begun.directory / "base").glob("work/*")))
        for process in os.listdir("/proc"):
            if process.isdigit():
                try:
                    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"tsugiki.workflow.worker" in words and str(begun.directory / "base").encode() in words:
                    os.kill(int(process), signal.SIGKILL)

    thread = threading.Thread(target=kill_worker)
    thread.start()
    with pytest.raises(StageError, match="killed by SIGKILL") as caught:
        begun.run()
    thread.join()
    assert "same command" in caught.value.hint
    assert begun.states()["base"] in {"interrupted", "waiting"}


def test_changed_recipe_does_not_silently_use_half_finished_work(begun):
    runner = start(begun)
    wait_for(lambda: any((begun.directory / "base" / "work").glob("checkpoint-*[0-9]")))
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    wait_for(lambda: not is_locked(begun.directory), seconds=10)
    begun.edit("learning_rate: 3e-3", "learning_rate: 2e-3")
    with pytest.raises(DriftError, match=r"learning_rate: 0\.003 -> 0\.002"):
        begun.run()
    assert "base" in begun.run(rebuild=True, until="base").ran


def test_two_runs_of_one_directory_at_once_are_refused(project):
    with (
        locked(project.directory),
        pytest.raises(InputError, match="in use by another"),
        locked(project.directory, wait_seconds=0.2),
    ):
        pass


@pytest.fixture
def small_disk(tmp_path):
    """A file system of forty megabytes; skipped where we may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk, filler):
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for block in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * block) == block:
                    pass
    return shutil.disk_usage(disk).free


def test_disk_that_fills_up_is_one_clear_error_and_the_run_goes_on(begun, finished, small_disk):
    begun.directory = shutil.move(begun.directory, small_disk / "small")
    filler = small_disk / "filler"

    def fill_when_it_trains():
        wait_for(lambda: any((begun.directory / "base" / "work").glob("*")))
        fill(small_disk, filler)

    thread = threading.Thread(target=fill_when_it_trains)
    thread.start()
    with pytest.raises(StorageError, match="no space is left") as caught:
        begun.run(until="base")
    thread.join()
    assert "same command" in caught.value.hint
    assert not (begun.directory / "base" / "manifest.json").exists()
    assert not list(begun.directory.rglob("*.partial"))
    filler.unlink()
    begun.run(until="base")
    theirs = finished.hashes()
    assert all(theirs[name] == digest for name, digest in begun.hashes().items())


def test_disk_too_small_from_the_start_is_refused_before_anything_runs(project, small_disk):
    project.directory = small_disk / "small"
    fill(small_disk, small_disk / "filler")
    (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).total - 1_000_000))
    with pytest.raises(StorageError, match="of disk are needed"):
        project.run()
    assert not (project.directory / "pages").exists()


def test_run_files_say_what_ran(finished):
    run = json.loads((finished.directory / "run.json").read_text())
    assert run["order"] == ["pages", "base", "more"]
    assert run["stages"]["more"] == {"kind": "train", "inputs": ["base", "pages"]}
    assert "rules: none" in (finished.directory / "recipe.yaml").read_text()
