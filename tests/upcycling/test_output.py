"""Writing past the system's page cache: the bytes are the same, with or without it, and whatever fails."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import resource

import pytest
import torch

from tsugiki.models.weights import read_headers
from tsugiki.upcycling import output
from tsugiki.upcycling.output import PAGE_BYTES, Output, page_buffer, page_tensor
from tsugiki.upcycling.shards import Part, Shards

DIRECT = getattr(os, "O_DIRECT", 0)


@pytest.fixture(autouse=True)
def _small_pieces_directly(monkeypatch):
    monkeypatch.setattr(output, "_DIRECT_FROM_BYTES", PAGE_BYTES)


@pytest.fixture
def directly(monkeypatch):
    """How many bytes went past the cache, one number a call."""
    counts = []
    pwrite = os.pwrite

    def noted(descriptor, content, place):
        done = pwrite(descriptor, content, place)
        if DIRECT and fcntl.fcntl(descriptor, fcntl.F_GETFL) & DIRECT:
            counts.append(done)
        return done

    monkeypatch.setattr(os, "pwrite", noted)
    return counts


@pytest.fixture
def direct_disk(tmp_path):
    """Skips the test where this file system has no direct writes."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | DIRECT))
        (tmp_path / "probe").unlink()
    except OSError:
        pytest.skip("this file system has no direct writes")
    if not DIRECT:
        pytest.skip("this system has no direct writes")


def random_pieces(size, seed):
    """Places and sizes of which many fill pages and some don't, in any order; together all of `size`."""
    draw = random.Random(seed)
    place, pieces = 0, []
    while place < size:
        pages, odd = draw.randrange(1, 5) * PAGE_BYTES, draw.randrange(1, 300)
        room = -place % PAGE_BYTES or draw.choice([pages, pages, odd])
        pieces.append((place, min(room, size - place)))
        place += pieces[-1][1]
    draw.shuffle(pieces)
    return pieces


def written(path, size, seed):
    """Write a file in pieces; gives what it has to hold and how many bytes went through the cache."""
    meant, cached = random.Random(seed).randbytes(size), 0
    file = Output(path, size)
    for place, count in random_pieces(size, seed):
        buffer = page_buffer(count)
        buffer[:] = meant[place : place + count]
        cached += file.write(buffer, place)
    file.sync()
    file.close()
    file.close()
    return meant, cached


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("direct_disk")
def test_pieces_in_any_order_make_the_same_file_and_whole_pages_go_directly(seed, tmp_path, directly):
    size = 200_000 + seed
    meant, cached = written(tmp_path / "file", size, seed)
    assert (tmp_path / "file").read_bytes() == meant
    pages = sum(
        count for place, count in random_pieces(size, seed) if not (place % PAGE_BYTES or count % PAGE_BYTES)
    )
    assert sum(directly) == pages > 0
    assert cached == size - pages


def test_file_system_without_direct_writes_gets_the_same_bytes(tmp_path, monkeypatch, directly):
    open_file = os.open

    def refusing(path, flags, *mode):
        if flags & DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return open_file(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)
    meant, cached = written(tmp_path / "file", 100_000, 1)
    assert ((tmp_path / "file").read_bytes(), cached, directly) == (meant, 100_000, [])


@pytest.mark.usefixtures("direct_disk")
def test_disk_that_takes_only_a_part_and_then_refuses_gets_the_rest_through_the_cache(tmp_path, monkeypatch):
    pwrite, calls = os.pwrite, []

    def half(descriptor, content, place):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & DIRECT:
            calls.append(place)
            if len(calls) > 1:
                raise OSError(errno.EINVAL, "Invalid argument")
            return pwrite(descriptor, content[: len(content) // 2], place)
        return pwrite(descriptor, content, place)

    monkeypatch.setattr(os, "pwrite", half)
    meant = random.Random(1).randbytes(16 * PAGE_BYTES)
    file = Output(tmp_path / "file", len(meant))
    buffer = page_buffer(8 * PAGE_BYTES)
    for place in (0, 8 * PAGE_BYTES):
        buffer[:] = meant[place : place + len(buffer)]
        assert file.write(buffer, place) == (4 if place == 0 else 8) * PAGE_BYTES
    file.close()
    assert (tmp_path / "file").read_bytes() == meant
    assert calls == [0, 4 * PAGE_BYTES]  # it is not asked again


@pytest.mark.usefixtures("direct_disk")
def test_memory_that_does_not_begin_with_a_page_goes_through_the_cache(tmp_path, directly):
    file = Output(tmp_path / "file", 2 * PAGE_BYTES)
    assert file.write(page_buffer(3 * PAGE_BYTES)[8 : 8 + 2 * PAGE_BYTES], 0) == 2 * PAGE_BYTES
    file.close()
    assert not directly


def test_room_is_set_aside_before_anything_is_written(tmp_path):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, unlimited[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            Output(tmp_path / "file", 50_001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(0, 4), (1,), (3, 5), (4096, 2)])
def test_tensors_begin_with_a_page(shape):
    tensor = page_tensor(shape, torch.bfloat16)
    assert (tensor.shape, tensor.dtype) == (shape, torch.bfloat16)
    assert tensor.data_ptr() % PAGE_BYTES == 0 or not tensor.numel()
    assert not tensor.float().abs().sum()


def test_tensors_of_whole_pages_lie_at_pages_whatever_stands_between_them(tmp_path):
    parts = [Part(f"{size}", "BF16", (size,)) for size in (3, 2048, 5, 6144, 1024, 4096)]
    with Shards(tmp_path, parts, 10**6, "") as shards:
        for part in parts:
            shards.write(part.name, memoryview(bytes(part.bytes)))
        shards.finish()
    begins = {name: entry.begins for name, entry in read_headers(tmp_path).items()}
    assert all(begins[name] % PAGE_BYTES == 0 for name in ("2048", "6144", "4096"))


@pytest.mark.usefixtures("direct_disk")
def test_conversion_is_the_same_past_the_cache_and_through_it(make_dense, upcycle, directly, monkeypatch):
    model = make_dense(hidden_size=64, intermediate_size=256)  # matrices of eight pages

    def digests(directory):
        return [hashlib.sha256(path.read_bytes()).digest() for path in sorted(directory.iterdir())]

    past = digests(upcycle(model, workers=3, shard_bytes=500_000))
    assert sum(directly) > 8 * 2 * 3 * 256 * 64  # most experts' bytes; the model has two layers
    monkeypatch.setattr(output, "_DIRECT_FROM_BYTES", 1 << 40)
    directly.clear()
    assert digests(upcycle(model, workers=1, shard_bytes=500_000)) == past
    assert not directly
