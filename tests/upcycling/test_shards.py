"""Files that are written piece by piece: their format, kills at any moment, full disks, memory."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tsugiki.errors import StageError, StorageError
from tsugiki.models.weights import read_headers
from tsugiki.upcycling.shards import Part, Shards

PARTS = (Part("a", "BF16", (3, 5)), Part("b", "F32", (2, 3)), Part("c", "BF16", (7,)))
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}


def content(part):
    tensor = torch.arange(1, 1 + part.bytes // DTYPES[part.dtype].itemsize).to(DTYPES[part.dtype])
    return tensor.view(part.shape)


def write(shards, part):
    shards.write(part.name, memoryview(content(part).view(-1).view(torch.uint8).numpy()))


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("shard_bytes", [1, 40, 10**6])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_files_hold_what_was_written_in_any_order(shard_bytes, order, tmp_path):
    with Shards(tmp_path, PARTS, shard_bytes, "label") as shards:
        for number in order:
            write(shards, PARTS[number])
        shards.finish()
    for entry in read_headers(tmp_path).values():
        assert entry.begins % (4 if entry.dtype == "F32" else 2) == 0
        with safe_open(entry.file, framework="pt") as stored:
            assert stored.metadata()["format"] == "pt"
            for name in stored.keys():  # noqa: SIM118 (it is no mapping)
                part = next(part for part in PARTS if part.name == name)
                assert torch.equal(stored.get_tensor(name), content(part))
    index = tmp_path / "model.safetensors.index.json"
    assert index.exists() == (shard_bytes < 10**6)
    if index.exists():
        assert json.loads(index.read_text())["metadata"]["total_size"] == 30 + 24 + 14
    assert not list(tmp_path.glob("*.partial"))


def test_copied_tensor_has_the_bytes_of_its_source(tmp_path):
    tensors = {"x": torch.randn(5), "b": content(PARTS[1]), "y": torch.randn(300)}
    save_file(tensors, tmp_path / "source.safetensors")
    from tsugiki.models.weights import read_file_header

    source = read_file_header(tmp_path / "source.safetensors")["b"]
    with Shards(tmp_path / "out", PARTS[1:2], 10**6, "") as shards:
        shards.copy("b", source)
        shards.finish()
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as stored:
        assert torch.equal(stored.get_tensor("b"), content(PARTS[1]))


def test_copying_without_the_systems_help_gives_the_same(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    test_copied_tensor_has_the_bytes_of_its_source(tmp_path)


def test_tensor_that_never_came_or_has_another_size_is_an_error(tmp_path):
    with Shards(tmp_path, PARTS, 10**6, "") as shards:
        write(shards, PARTS[0])
        with pytest.raises(StageError, match="b was never written"):
            shards.finish()
        with pytest.raises(StageError, match="24 were planned"):
            shards.write("b", memoryview(b"1234"))
    assert not list(tmp_path.iterdir())


def test_files_of_another_label_or_generation_are_not_kept(tmp_path):
    def write_all(label, shard_bytes):
        with Shards(tmp_path, PARTS, shard_bytes, label) as shards:
            kept = [part.name for part in PARTS if shards.has(part.name)]
            for part in PARTS:
                if part.name not in kept:
                    write(shards, part)
            shards.finish()
        return kept

    assert write_all("one", 40) == []
    assert write_all("one", 40) == ["a", "b", "c"]
    assert write_all("other", 40) == []
    assert write_all("other", 10**6) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_disk_that_fails_while_it_is_flushed_is_a_storage_error(dense, upcycle, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tsugiki.upcycling.shards._FLUSHED_AT_ONCE_BYTES", 50_000)
    flushed = upcycle(dense)
    assert digests(flushed) == digests(upcycle(dense, workers=1))
    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(StorageError, match="no space is left"):
        upcycle(dense, out=tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())


CONVERT = """
import os, signal, sys
from pathlib import Path
from tsugiki.upcycling import shards
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.convert import convert

source, out, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
finish, finished = shards._finish, 0

def then_die(file):
    global finished
    if finished == stop:
        os.kill(os.getpid(), signal.SIGKILL)   # the file is written, and does not have its name yet
    finished += 1
    finish(file)

shards._finish = then_die
options = {"draws": "released", "shared_indices": False} if sys.argv[4] == "released" else {"workers": 3}
convert([source], out, Config(model="dense", **options), shard_bytes=100_000)
"""


def convert_in_process(source, out, stop, draws):
    command = [sys.executable, "-c", CONVERT, source, out, str(stop), draws]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("draws", ["independent", "released"])
def test_killed_conversion_goes_on_and_ends_with_the_same_bytes(draws, dense, upcycle, tmp_path):
    options = {"draws": "released", "shared_indices": False} if draws == "released" else {}
    undisturbed = upcycle(dense, shard_bytes=100_000, **options)
    out = tmp_path / "killed"
    kept = {}
    for stop in (4, 9):
        done = convert_in_process(dense, out, stop, draws)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert list(out.glob("*.partial"))
        whole = {path.name: path.stat().st_ino for path in out.glob("*.safetensors")}
        assert len(whole) > len(kept)
        assert kept.items() <= whole.items()  # what was whole was not written again
        kept = whole
    upcycle(dense, out=out, shard_bytes=100_000, **options)
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.glob("*.safetensors")}.items()
    assert digests(out) == digests(undisturbed)


@pytest.mark.parametrize("limit", [100, 30_000, 60_000])
def test_full_disk_ends_in_one_storage_error_and_goes_on_when_there_is_room(limit, dense, upcycle, tmp_path):
    out = tmp_path / "full"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        with pytest.raises(StorageError, match="the file would grow past the allowed size"):
            upcycle(dense, out=out, shard_bytes=100_000, workers=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list(out.glob("*.partial"))
    upcycle(dense, out=out, shard_bytes=100_000)
    assert digests(out) == digests(upcycle(dense, shard_bytes=100_000))


MEMORY = """
import re, sys
from pathlib import Path
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.convert import convert

def peak():  # not ru_maxrss: that of a process begins with what its parent had
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

small, large, out = map(Path, sys.argv[1:4])
convert([small], out / "small", Config(model="dense"))
before = peak()
convert([large], out / "large", Config(model="dense", workers=2))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_model(dense, make_dense, tmp_path):
    width, inner = 256, 2048  # a matrix of 1 MiB
    large = make_dense(hidden_size=width, intermediate_size=inner, layers=12, head_dim=64)
    command = [sys.executable, "-c", MEMORY, dense, large, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert sum(path.stat().st_size for path in (tmp_path / "large").iterdir()) > 300e6
    assert int(done.stdout) < 40e6
