"""Tasks over processes: results, errors that cross, a worker that dies, Ray."""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.corpus.config import Config
from tsugiki.corpus.engine import Engine, run_tasks, wait_for_others
from tsugiki.corpus.toolbox import Resources
from tsugiki.corpus.unit import make_unit
from tsugiki.errors import DependencyError, InputError, StageError

DAFT_LEAVES_PIPES_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
JOBS = [{"number": number, "名": "値" * number} for number in range(9)]


@pytest.fixture
def unit_jobs(tmp_path):
    """A job that works and one whose file has no text column."""
    pq.write_table(pa.table({"text": ["短い。"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    shared = {
        "config": Config(source="x", language="ja").model_dump(mode="json"),
        "resources": Resources().as_dict(),
        "downloads": str(tmp_path),
    }
    return [
        {**shared, "file": str(tmp_path / f"{name}.parquet"), "unit": str(tmp_path / f"unit-{name}")}
        for name in "ab"
    ]


def test_run_tasks_in_this_process_gives_results_in_order():
    assert list(run_tasks(dict, JOBS, Engine())) == JOBS
    assert list(run_tasks(dict, [], Engine(workers=4))) == []


@DAFT_LEAVES_PIPES_OPEN
def test_run_tasks_in_processes_gives_the_same_results_whatever_their_order():
    found = list(run_tasks(dict, JOBS, Engine(workers=2)))
    assert sorted(found, key=lambda job: job["number"]) == JOBS
    wait_for_others()
    gc.collect()


@DAFT_LEAVES_PIPES_OPEN
@pytest.mark.parametrize("workers", [1, 2])
def test_run_tasks_raises_a_tasks_own_error_from_any_process(unit_jobs, workers):
    with pytest.raises(InputError, match='no column "text"') as caught:
        list(run_tasks(make_unit, unit_jobs, Engine(workers=workers)))
    assert caught.value.hint
    gc.collect()


@DAFT_LEAVES_PIPES_OPEN
def test_run_tasks_in_processes_works_in_this_one_too_and_begins_here(monkeypatch, tmp_path):
    (tmp_path / "named_tasks.py").write_text(
        "import os, time\n"
        "def who(job):\n"
        "    time.sleep(job['seconds'])\n"
        "    return {'process': os.getpid(), 'number': job['number']}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    who = importlib.import_module("named_tasks").who
    jobs = [{"seconds": 0.2, "number": number} for number in range(24)]
    found = list(run_tasks(who, jobs, Engine(workers=2)))
    wait_for_others()
    assert found[0]["process"] == os.getpid()
    assert len({one["process"] for one in found}) == 2
    assert sorted(one["number"] for one in found) == list(range(24))
    gc.collect()


WITHOUT_WORKERS = """
from tsugiki.corpus import engine
engine._END_SECONDS = 0.1
jobs = [{"number": number} for number in range(5)]
assert list(engine.run_tasks(dict, jobs, engine.Engine(workers=2))) == jobs
engine.wait_for_others()
print("done")
"""


def test_run_tasks_whose_other_process_never_begins_does_all_jobs_and_ends(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'daft.execution.udf_worker' in sys.orig_argv:\n    os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WORKERS],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@DAFT_LEAVES_PIPES_OPEN
def test_run_tasks_that_is_left_early_ends_the_other_processes():
    jobs = [{"number": number} for number in range(400)]
    running = run_tasks(dict, jobs, Engine(workers=2))
    assert next(running) == jobs[0]
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "daft"]
    gc.collect()


def test_run_tasks_on_ray_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match="ray") as caught:
        list(run_tasks(dict, JOBS, Engine("ray", 2)))
    assert "tsugiki[ray]" in caught.value.hint


ON_RAY = """
import json, sys
from tsugiki.corpus.engine import Engine, run_tasks
engine = Engine("ray", 2, *sys.argv[1:])
print(json.dumps(sorted(run_tasks(dict, [{"number": n} for n in range(6)], engine), key=str)))
"""


def on_ray(*arguments):
    command = [sys.executable, "-W", "ignore", "-c", ON_RAY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_run_tasks_on_a_local_ray_cluster_gives_the_same_results():
    done = on_ray()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [{"number": number} for number in range(6)]


@pytest.mark.slow
def test_run_tasks_without_the_named_cluster_is_a_stage_error_with_a_hint():
    done = on_ray("127.0.0.1:1")
    assert done.returncode != 0
    assert "StageError: no Ray cluster answers at 127.0.0.1:1" in done.stderr
    assert "Hint:" in done.stderr


@pytest.mark.slow
def test_run_with_a_killed_worker_process_ends_with_one_error_and_goes_on_later(tmp_path, warc, japanese):
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for number in range(24):
        texts = [japanese(100 * number + i, sentences=200) for i in range(60)]
        warc.crawl(crawl / f"{number:02d}.warc.gz", texts)
    command = [sys.executable, "-m", "tsugiki", "corpus", str(tmp_path / "out"), "--language", "ja"]
    # random kana spell an expression of the list now and then
    command += ["--source", f"{crawl}/*.warc.gz", "--hosts", "{statistics: false}", "--workers"]
    with subprocess.Popen([*command, "2"], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        os.kill(a_worker_below(running.pid, tmp_path / "out"), signal.SIGKILL)
        _, said = running.communicate(timeout=180)
    assert running.returncode == StageError.exit_code
    assert "a worker process failed" in said
    assert "Hint: run the same command again" in said
    done = subprocess.run([*command, "1"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def a_worker_below(pid, out):
    """The process id of a Daft worker below `pid`, once a unit is finished and it reads a file of the crawl.

    Daft would wait for ever for a process that is killed before it has begun.
    """
    for _ in range(2400):  # Daft takes its time to start on a busy machine
        time.sleep(0.05)
        if not list(out.glob("work/units/*.json")):
            continue
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and is_worker_below(place, pid) and reads_a_crawl(place):
                return int(place.name)
    raise AssertionError("no worker process was seen")


def reads_a_crawl(place):
    try:
        return any(one.readlink().suffixes[-2:] == [".warc", ".gz"] for one in (place / "fd").iterdir())
    except OSError:
        return False


def is_worker_below(place, ancestor):
    try:
        if b"udf_worker" not in (place / "cmdline").read_bytes():
            return False
        while place.name not in {"0", "1"}:
            parent = (place / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if int(parent) == ancestor:
                return True
            place = Path("/proc") / parent
    except OSError:
        pass
    return False
