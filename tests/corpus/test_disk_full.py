"""A disk without room, at every step of the stage: one clear error, nothing half-written, and on it goes.

Twice: by the limit on file sizes, which the kernel enforces like a full disk, and on a small file system.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile

import pytest

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import stage
from tsugiki.corpus.config import Config

OPTIONS = {
    "source": "crawl",
    "language": "ja",
    "heldout": 0.2,
    "workers": 1,
    "near_duplicates": {"bands": 10, "rows": 4, "verify": 0.6, "index": True},
}

RUN = """
import importlib, json, resource, sys
from pathlib import Path
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import stage
from tsugiki.errors import StorageError

options, root, files = json.loads(sys.argv[1]), Path(sys.argv[2]), tuple(map(Path, sys.argv[3].split(":")))
config = stage.Config.model_validate(options)

def run():
    out = open_workspace(root)
    try:
        stage.run(config, Inputs({"crawl": files}), out)
    except StorageError as error:
        return {"message": error.message, "hint": error.hint}
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()
    return None

def report(error):
    left = [str(path) for path in root.rglob("*.partial*")]
    print(json.dumps({"error": error, "left": left}), flush=True)
"""

LIMITED = """
def limited(function):
    def within(*given, **named):
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, unlimited[1]))
        try:
            return function(*given, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    return within

for place in sys.argv[4:]:
    name, *between, function = place.split(".")
    owner = importlib.import_module("tsugiki.corpus." + name)
    for step in between:
        owner = getattr(owner, step)
    whole = getattr(owner, function)
    setattr(owner, function, limited(whole))
    report(run())
    setattr(owner, function, whole)
    importlib.import_module("tsugiki.corpus.identify")._identifier()
report(run())
"""

FILLED = """
import contextlib, os, shutil
disk, step_bytes = root.parent, int(sys.argv[4])
filler = disk / "filler"
room, last = step_bytes, None
while True:
    filler.unlink(missing_ok=True)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - room))
    error = run()
    report(error)
    if error is None:
        break
    room = room + step_bytes if error == last else step_bytes
    last = error
"""

PLACES = {
    "identify.LanguageIdentifier.from_model_file": tempfile.gettempdir(),
    "units.make_unit": "units/",
    "segments.write_unit_index": "units/",
    "unit.write_json": "units/",
    "clusters.edges_task": "index/band-0000",
    "clusters.band_edges": "edges-",
    "clusters.write_candidates": "candidates",
    "clusters.compare_task": "alike-000000",
    "clusters.Components": "parents",
    "assemble.choose": "clusters/",
    "assemble.judge_hosts": "",
    "assemble.kept_documents": "kept",
    "assemble.hold_out": "clusters/",
    "assemble.save_index": "index",
    "writing.part_task": "part-00000.parquet",
}
"""Functions that find no room, one after the other, and what the file is named that they could not write."""


@pytest.fixture
def crawl(tmp_path, warc, japanese):
    texts = [japanese(seed) for seed in range(16)]
    texts += [text.replace("です。", "です！", 3) for text in texts[:6]]
    texts += ["短い文章です。"]
    return [warc.crawl(tmp_path / f"{name}.warc.gz", texts[i::2]) for i, name in enumerate("ab")]


@pytest.fixture
def expected(tmp_path, crawl):
    """What a run gives that had room."""
    out = open_workspace(tmp_path / "whole")
    stage.run(Config.model_validate(OPTIONS), Inputs({"crawl": tuple(crawl)}), out)
    out.metrics.close()
    for handler in out.log.handlers:
        handler.close()
    return contents(tmp_path / "whole")


def contents(root):
    files = [
        *sorted(path for part in ("documents", "rejected", "index") for path in (root / part).rglob("*"))
    ]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*files, root / "hosts.parquet"]
    }


def reports(code, root, crawl, *arguments):
    given = [json.dumps(OPTIONS), str(root), ":".join(map(str, crawl)), *arguments]
    done = subprocess.run(
        [sys.executable, "-c", RUN + code, *given], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_room_at_any_step_is_a_storage_error_and_the_rerun_gives_the_same_bytes(tmp_path, crawl, expected):
    *failed, last = reports(LIMITED, tmp_path / "out", crawl, *PLACES)
    for (place, named), seen in zip(PLACES.items(), failed, strict=True):
        assert seen["error"], place
        assert named in seen["error"]["message"], place
        assert "past the allowed size" in seen["error"]["message"], place
        assert "same command" in seen["error"]["hint"], place
        assert seen["left"] == [], place
    assert last == {"error": None, "left": []}
    assert contents(tmp_path / "out") == expected


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk_that_gets_some_room_now_and_then_ends_with_the_same_bytes(small_disk, crawl, expected):
    *failed, last = reports(FILLED, small_disk / "out", crawl, "16384")
    assert last == {"error": None, "left": []}
    for seen in failed:
        assert "no space is left" in seen["error"]["message"]
        assert "free some space" in seen["error"]["hint"]
        assert seen["left"] == []
    words = " ".join(seen["error"]["message"] for seen in failed)
    assert all(part in words for part in ("/units/", "/clusters/", "part-00000.parquet"))
    assert contents(small_disk / "out") == expected
