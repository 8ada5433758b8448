"""Atomic writing: a reader sees the whole file or none, whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from tsugiki.artifacts.files import (
    atomic_directory,
    atomic_path,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from tsugiki.errors import InputError, StorageError, storage_errors


def test_atomic_path_when_the_writer_fails_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_directory_when_the_writer_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "d") as partial:
        (partial / "x").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_atomic_directory_replaces_what_a_killed_writer_left(tmp_path):
    (tmp_path / "d.partial").mkdir()
    (tmp_path / "d.partial" / "stale").write_text("x")
    with atomic_directory(tmp_path / "d") as partial:
        (partial / "fresh").write_text("y")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["fresh"]


def test_write_json_killed_in_a_loop_never_leaves_half_a_file(tmp_path):
    target = tmp_path / "value.json"
    program = (
        "import sys; from pathlib import Path; from tsugiki.artifacts.files import write_json\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; write_json(Path(sys.argv[1]), {'n': n, 'rest': [n] * 5000})\n"
        "    if n == 3: print('ready', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    value = json.loads(target.read_text())
    assert value["rest"] == [value["n"]] * 5000


def test_write_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_write_json_keeps_lone_surrogates_as_escapes(tmp_path):
    value = {"text": "a\ud800b", "語": "接"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


def test_read_json_of_a_broken_file_names_it(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match="x.json is not valid JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "no space"), (errno.EACCES, "permission"), (errno.EROFS, "read-only")]
)
def test_storage_errors_translates_the_systems_word(tmp_path, number, said):
    with pytest.raises(StorageError, match=said), storage_errors(tmp_path):
        raise OSError(number, "from the system")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Errno 28] Error writing bytes: No space left on device", "no space"),  # Arrow
        ("I/O error: No space left on device (os error 28)", "no space"),  # safetensors
        ("I/O error: Disk quota exceeded (os error 122)", "quota"),
    ],
)
def test_storage_errors_translates_what_a_library_wraps(tmp_path, text, said):
    with pytest.raises(StorageError, match=said), storage_errors(tmp_path):
        raise ValueError(text)


def test_storage_errors_lets_other_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "absent").read_text()


def test_sha256_of_a_known_text(tmp_path):
    write_text(tmp_path / "abc", "abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
