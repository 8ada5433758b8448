"""Near-duplicates of a whole corpus in tasks: the same on any number of workers, and resumed after a kill."""

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import clusters, stage
from tsugiki.corpus.clusters import find_clusters
from tsugiki.corpus.engine import Engine, wait_for_others
from tsugiki.corpus.stage import Config
from tsugiki.corpus.stored import stored_at

DAFT_LEAVES_PIPES_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
NEAR = {"bands": 10, "rows": 4, "verify": 0.7}
CHANGED = {"heldout": 0.2, "near_duplicates": NEAR}


def execute(root, files, inputs=(), progress=lambda *_: None, **options):
    config = Config.model_validate({"source": "crawl", "language": "ja", **CHANGED, **options})
    out = open_workspace(root, progress)
    try:
        return stage.run(config, Inputs({"crawl": tuple(files), **dict(inputs)}), out)
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()


def contents(root):
    files = sorted(path for part in ("documents", "rejected", "index") for path in (root / part).rglob("*"))
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def finished(root):
    """The files of pairs that are there, with the times when they were written."""
    return {path: path.stat().st_mtime_ns for path in root.glob("work/clusters/edges-*/*")}


@pytest.fixture
def crawl(tmp_path, warc, japanese):
    """Two files with 20 pages, and each of them again with 1 to 10 of its 30 sentences exchanged."""
    texts = [japanese(seed) for seed in range(20)]
    for seed, text in enumerate(texts[:]):
        lines, other = text.split("。"), japanese(seed + 100).split("。")
        changed = seed % 10 + 1
        texts.append("。".join(other[:changed] + lines[changed:]))
    return [warc.crawl(tmp_path / f"{name}.warc.gz", texts[i::2]) for i, name in enumerate("ab")]


def test_verification_in_batches_gives_the_same_bytes_as_all_pairs_at_once(tmp_path, crawl, monkeypatch):
    expected = execute(tmp_path / "whole", crawl)
    verified = expected.facts["near_duplicates"]["verified"]
    assert 0 < verified["confirmed"] < verified["pairs"]
    monkeypatch.setattr(clusters, "PAIRS_A_BATCH", 3)
    assert execute(tmp_path / "cut", crawl) == expected
    batches = list(tmp_path.glob("cut/work/clusters/edges-*/alike-*"))
    assert len(batches) == -(-verified["pairs"] // 3)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@DAFT_LEAVES_PIPES_OPEN
@pytest.mark.parametrize("threads", [False, True])
def test_verification_in_processes_or_threads_writes_the_same_files(tmp_path, crawl, monkeypatch, threads):
    monkeypatch.setattr(clusters, "PAIRS_A_BATCH", 5)
    execute(tmp_path / "out", crawl)
    work = tmp_path / "out" / "work" / "clusters"
    whole = {path: path.read_bytes() for path in work.glob("edges-*/alike-*")}
    assert len(whole) > 2
    for path in whole:
        path.unlink()
    config = Config.model_validate({"source": "crawl", "language": "ja", **CHANGED})
    parameters = clusters.Parameters(config.near_duplicates, (), work, config.memory)
    stored = stored_at(str(work / "segments.json"))
    find_clusters(stored, parameters, Engine(workers=2, threads=threads), None, lambda *_: None)
    wait_for_others()
    assert {path: path.read_bytes() for path in work.glob("edges-*/alike-*")} == whole
    gc.collect()


KILLED = """
import os, signal, sys
from pathlib import Path
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import clusters, stage

root, task, left, *files = sys.argv[1:]
left = int(left)
work = getattr(clusters, task)

def dying(job):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(job)

setattr(clusters, task, dying)
clusters.PAIRS_A_BATCH = 5
config = stage.Config.model_validate({"source": "crawl", "language": "ja", "workers": 1, **%r})
stage.run(config, Inputs({"crawl": tuple(map(Path, files))}), open_workspace(Path(root)))
"""


def killed(root, task, calls, files, near):
    code = KILLED % {**CHANGED, "near_duplicates": near}
    command = [sys.executable, "-c", code, str(root), task, str(calls), *map(str, files)]
    died = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


@pytest.mark.parametrize(("task", "calls"), [("edges_task", 0), ("edges_task", 7), ("compare_task", 2)])
def test_deduplication_killed_and_started_again_keeps_what_was_finished(
    tmp_path, crawl, monkeypatch, task, calls
):
    monkeypatch.setattr(clusters, "PAIRS_A_BATCH", 5)
    near = {**NEAR, "index": True}
    expected = execute(tmp_path / "whole", crawl, near_duplicates=near)
    killed(tmp_path / "killed", task, calls, crawl, near)
    before = finished(tmp_path / "killed")
    kind = "band-" if task == "edges_task" else "alike-"
    assert sum(path.name.startswith(kind) for path in before) == calls
    (edges,) = (tmp_path / "killed" / "work" / "clusters").glob("edges-*")
    (edges / "band-0009.partial").write_bytes(b"torn")
    time.sleep(0.01)
    seen = []
    again = execute(
        tmp_path / "killed",
        crawl,
        near_duplicates=near,
        progress=lambda done, total, unit, _: seen.append((done, total)) if unit == "bands" else None,
    )
    assert again == expected
    assert {path: when for path, when in finished(tmp_path / "killed").items() if path in before} == before
    first = calls if task == "edges_task" else NEAR["bands"]
    assert seen == [(done, 10) for done in range(first + 1, 11)]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_deduplication_takes_over_nothing_that_was_made_of_other_units(tmp_path, crawl, warc, japanese):
    root = tmp_path / "out"
    execute(root, crawl)
    before = finished(root)
    assert execute(root, crawl) is not None
    assert finished(root) == before
    crawl[1].write_bytes(crawl[1].read_bytes() + warc.member(warc.record(japanese(77))))
    again = execute(root, crawl)
    assert not before.keys() & finished(root).keys()
    assert again == execute(tmp_path / "new", crawl)
    assert contents(root) == contents(tmp_path / "new")


def test_deduplication_of_a_run_that_was_moved_goes_on_there(tmp_path, crawl):
    expected = execute(tmp_path / "here", crawl)
    (tmp_path / "here").rename(tmp_path / "there")
    before = finished(tmp_path / "there")
    assert execute(tmp_path / "there", crawl) == expected
    assert finished(tmp_path / "there") == before


def test_deduplication_makes_a_band_again_whose_index_is_gone_or_whose_older_corpus_changed(
    tmp_path, crawl, warc, japanese
):
    older = tmp_path / "older"
    near = {**NEAR, "index": True, "verify": None}
    execute(older, [warc.crawl(tmp_path / "old.warc.gz", [japanese(1), japanese(2)])], near_duplicates=near)
    shutil.rmtree(older / "work")
    near["against"] = ["older"]
    given = {"older": (older,)}
    root = tmp_path / "out"
    expected = execute(root, crawl, given, near_duplicates=near)
    assert expected.facts["near_duplicates"]["with_older"] >= 2
    before, whole = finished(root), contents(root)
    (root / "index" / "band-0003.keys").unlink()
    (root / "index" / "band-0004.documents").write_bytes(b"short")
    assert execute(root, crawl, given, near_duplicates=near) == expected
    rewritten = {path.name[:9] for path, when in finished(root).items() if before[path] != when}
    assert rewritten == {"band-0003", "band-0004"}
    assert contents(root) == whole
    os.utime(older / "index" / "index.json", ns=(1, 1))
    execute(root, crawl, given, near_duplicates=near)
    assert not before.keys() & finished(root).keys()


def test_verified_counts_are_those_of_the_files_of_a_resumed_run(tmp_path, crawl):
    expected = execute(tmp_path / "out", crawl).facts["near_duplicates"]["verified"]
    (edges,) = (tmp_path / "out" / "work" / "clusters").glob("edges-*")
    alike = np.fromfile(edges / "alike-000000", "<i8").reshape(-1, 2)
    assert (alike[:, 0] < alike[:, 1]).all()
    assert 0 < len(alike) == expected["confirmed"] < expected["pairs"]
    assert execute(tmp_path / "out", crawl).facts["near_duplicates"]["verified"] == expected
