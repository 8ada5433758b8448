"""Files are fetched from a server on loopback, checked against their pins, and found again."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote

import pytest

from tsugiki.cli import app
from tsugiki.errors import InputError, StorageError
from tsugiki.evaluation.benchmarks import fetch as module
from tsugiki.evaluation.benchmarks.fetch import fetch_task
from tsugiki.evaluation.benchmarks.manifest import manifest
from tsugiki.evaluation.benchmarks.questions import questions_of, read_material
from tsugiki.evaluation.benchmarks.reading import load_task, settings_of
from tsugiki.evaluation.benchmarks.schema import Origin, TaskSpec
from tsugiki.evaluation.benchmarks.store import SAMPLE, Store

HUB_COMMIT = "c" * 40


class Server(BaseHTTPRequestHandler):
    """Serves the sample's files under any commit, as GitHub does; and a hub with one dataset."""

    faults: ClassVar[dict[str, list[int]]] = {}
    asked: ClassVar[list[str]] = []
    rows = b'{"id": "1", "text": "a", "summary": "b"}\n'

    def do_GET(self):
        self.asked.append(self.path)
        fault = self.faults.get(self.path.rpartition("/")[2], [])
        if fault:
            self._answer(fault.pop(0), b"")
        elif "/tree/" in self.path:
            oid = hashlib.sha1(self.rows).hexdigest()  # noqa: S324 (as the hub does)
            row = {"type": "file", "path": "data/test-0.jsonl", "size": len(self.rows), "oid": oid}
            self._answer(200, json.dumps([row]).encode())
        elif self.path.startswith("/api/datasets/"):
            facts = {"id": "o/d", "sha": HUB_COMMIT, "siblings": [{"rfilename": "data/test-0.jsonl"}]}
            self._answer(200, json.dumps(facts).encode())
        elif self.path.startswith("/datasets/"):
            self._answer(200, self.rows)
        else:
            owner, repository, _, *path = unquote(self.path).strip("/").split("/")
            file = SAMPLE / owner / repository / "/".join(path)
            self._answer(200, file.read_bytes()) if file.is_file() else self._answer(404, b"")

    do_HEAD = do_GET

    def _answer(self, code, data):
        self.send_response(code)
        cut = self.faults.get("cut")
        self.send_header("Content-Length", str(len(data) + (cut.pop() if cut else 0)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')  # noqa: S324 (as the hub does)
        self.send_header("X-Repo-Commit", HUB_COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    Server.faults.clear()
    Server.asked.clear()
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def unpinned(monkeypatch):
    """The manifest without hashes: the server has our sample and not the benchmarks."""
    known = {key: type(pin)(**{**vars(pin), "sha256": "", "bytes": None}) for key, pin in manifest().items()}
    monkeypatch.setattr("tsugiki.evaluation.benchmarks.fetch.manifest", lambda: known)
    monkeypatch.setattr("tsugiki.evaluation.benchmarks.store.manifest", lambda: known)
    return known


def test_fetch_puts_files_at_their_commits_where_the_store_finds_them(tmp_path, address, unpinned):
    task = load_task("gsm8k")
    rows = fetch_task(task, tmp_path, address=address)
    assert [(row.split, row.state, row.licence) for row in rows] == [
        ("test", "fetched", "MIT"),
        ("train", "fetched", "MIT"),
    ]
    commit = unpinned["openai/grade-school-math", "grade_school_math/data/test.jsonl"].commit
    assert f"/openai/grade-school-math/{commit}/grade_school_math/data/test.jsonl" in Server.asked
    settings = settings_of(task, "corrected")
    material = read_material(task, settings, Store(tmp_path))
    assert all(source["pinned"] for source in material.sources)  # by the folder's own pins.json
    assert len(questions_of(task, settings, material, name="a", dataset="b", most=None, seed=0)) == 3
    assert [row.state for row in fetch_task(task, tmp_path, address=address)] == ["kept", "kept"]


def test_fetch_file_that_changed_is_refused_until_its_hash_is_accepted(tmp_path, address, unpinned):
    task = load_task("gsm8k")
    fetch_task(task, tmp_path, address=address)
    file = tmp_path / "openai/grade-school-math/grade_school_math/data/test.jsonl"
    file.write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    settings = settings_of(task, "corrected")
    with pytest.raises(InputError, match=digest):
        read_material(task, settings, Store(tmp_path))
    accepted = read_material(task, settings, Store(tmp_path, accept=frozenset({digest})))
    assert [record["question"] for record in accepted.test] == ["1+1?"]
    assert [row.state for row in fetch_task(task, tmp_path, address=address)] == ["fetched", "kept"]


def test_fetch_other_content_than_the_manifest_pins_leaves_no_file(tmp_path, address):
    with pytest.raises(InputError, match="is pinned"):
        fetch_task(load_task("jemhopqa"), tmp_path, address=address)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    name = "aiishii/JEMHopQA/corpus/dev.json"
    digest = hashlib.sha256((SAMPLE / name).read_bytes()).hexdigest()[:16]
    other = hashlib.sha256((SAMPLE / name.replace("dev", "train")).read_bytes()).hexdigest()[:16]
    rows = fetch_task(load_task("jemhopqa"), tmp_path, address=address, accept=(digest, other))
    assert [row.bytes for row in rows] == [(tmp_path / row.source / row.file).stat().st_size for row in rows]


def test_fetch_task_of_many_subjects_takes_prompts_along(tmp_path, address, unpinned):
    task = load_task("bbh")
    two = task.model_copy(update={"subjects": ("object_counting", "word_sorting")})
    files = [row.file for row in fetch_task(two, tmp_path, address=address)]
    assert files == [
        "bbh/object_counting.json",
        "bbh/word_sorting.json",
        "cot-prompts/object_counting.txt",
        "cot-prompts/word_sorting.txt",
    ]


def test_fetch_server_that_stumbles_is_asked_again(tmp_path, address, unpinned):
    Server.faults["test.jsonl"] = [503, 500]
    assert fetch_task(load_task("gsm8k"), tmp_path, address=address)[0].state == "fetched"
    Server.faults["test.jsonl"] = [503, 503, 503]
    with pytest.raises(StorageError, match="3 attempts"):
        fetch_task(load_task("gsm8k"), tmp_path / "other", address=address)


def test_fetch_answer_that_is_cut_short_is_no_file(tmp_path, address, unpinned):
    Server.faults["cut"] = [7, 7, 7]
    with pytest.raises(StorageError, match="3 attempts"):
        fetch_task(load_task("gsm8k"), tmp_path, address=address)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_fetch_file_that_is_gone_says_so_at_once(tmp_path, address, unpinned):
    with pytest.raises(InputError, match="is not there"):
        fetch_task(load_task("mmlu"), tmp_path, address=address, where="github")
    assert len(Server.asked) == 1  # the first subject is not among the sample's; an answer is not asked again


def test_fetch_what_has_no_address_is_listed(tmp_path, address, unpinned):
    rows = fetch_task(load_task("wmt20-en-ja"), tmp_path, address=address)
    assert [(row.split, row.state) for row in rows] == [
        ("test", "by hand"),
        ("shots", "fetched"),
        ("shots", "fetched"),
    ]
    assert rows[0].note == str(tmp_path / "wmt20-en-ja")


def test_fetch_dataset_of_the_hub_is_pinned_by_its_content(tmp_path, address, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    origin = Origin(hub="o/d", files=("data/test-*.jsonl",), format="xlsum")
    base = load_task("xlsum-ja")
    task = TaskSpec.model_validate(
        {**base.model_dump(), "splits": {"test": (origin,), "train": (origin,)}, "cluster": None}
    )
    rows = fetch_task(task, tmp_path, hub_address=address)
    assert {(row.file, row.state) for row in rows} == {("data/test-0.jsonl", "fetched")}
    assert Store(tmp_path).find(task, "test").files[0].pinned
    (tmp_path / "o/d/data/test-0.jsonl").write_text('{"id": "1", "text": "x", "summary": "y"}\n')
    with pytest.raises(InputError, match="accept_hashes"):
        Store(tmp_path).find(task, "test")


def test_fetch_command_prints_licences_and_tasks_lists_all(tmp_path, address, unpinned, capsys):
    app(
        ["evaluate", "fetch", str(tmp_path), "--tasks", "gsm8k", "--address", address],
        result_action="return_value",
    )
    assert "MIT" in capsys.readouterr().out
    app(["evaluate", "tasks"], result_action="return_value")
    listed = capsys.readouterr().out
    assert len(listed.splitlines()) == 1 + 19 + 4 + 1
    assert "3,541" in listed
    assert "not to be passed on" in listed
    app(["evaluate", "tasks", "--json"], result_action="return_value")
    facts = json.loads(capsys.readouterr().out)
    assert {"effect", "description", "reference"} <= set(facts[0]["defects"]["stop_at_q"])
