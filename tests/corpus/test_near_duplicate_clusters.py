"""Near-duplicates on disk: bands, components, survivors, weights, against plain Python; faults and memory."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import kernels as corpus_kernels
from tsugiki.corpus.neardup import kernels
from tsugiki.corpus.neardup.bands import band_edges, read_pairs, sorted_band
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.passes import LARGEST, plan_passes
from tsugiki.corpus.neardup.survivors import (
    UNKNOWN_DATE,
)
from tsugiki.corpus.neardup.units import UnitIndex, create_array, number_units, write_unit_index
from tsugiki.errors import InputError, StorageError

MINIMUM = 1  # bytes: the smallest memory budget that a task accepts; it takes 1,024 documents a pass then


def edges_of(units, bands, target, **options):
    """The pairs of all bands."""
    found = []
    for band in range(bands):
        count = band_edges(units, bands, band, target, **options)
        pairs = [tuple(pair) for block in read_pairs(target) for pair in block.tolist()]
        assert len(pairs) == count
        found += pairs
    return found


def oracle_components(keys):
    """Groups of documents linked by equal keys, by plain sets."""
    groups = [{i} for i in range(len(keys))]
    holders = defaultdict(list)
    for document, row in enumerate(keys.tolist()):
        for band, key in enumerate(row):
            holders[band, key].append(document)
    for members in holders.values():
        merged = set().union(*(groups[i] for i in members))
        for i in merged:
            groups[i] = merged
    return [min(group) for group in groups]


def test_unit_index_round_trip_gives_signatures_and_the_keys_of_each_band(tmp_path):
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 2**32, (count, 12), dtype=np.uint32) for count in (5, 0, 3)]
    for number, part in enumerate(parts):
        write_unit_index(tmp_path / f"u.{number}", part, bands=4, rows=3)
    units = number_units([tmp_path / f"u.{number}" for number in range(3)], bands=4, rows=3)
    assert [(unit.first, unit.count) for unit in units] == [(0, 5), (5, 0), (5, 3)]
    for unit, part in zip(units, parts, strict=True):
        assert np.array_equal(unit.signatures(12), part)
        expected = corpus_kernels.band_keys(part, 4, 3)
        for band in range(4):
            assert np.array_equal(unit.band(4, band), expected[:, band])
    assert (tmp_path / "u.0.signatures").stat().st_size == 5 * 12 * 4


def test_unit_index_of_the_wrong_width_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\(2, 5\).*\(documents, 6\)"):
        write_unit_index(tmp_path / "u", np.zeros((2, 5), np.uint32), bands=2, rows=3)


@pytest.mark.parametrize(
    ("suffix", "cut"), [("signatures", 1), ("signatures", 48), ("bands", 1), ("bands", 8)]
)
def test_truncated_unit_files_are_refused_with_both_sizes(tmp_path, suffix, cut):
    write_unit_index(tmp_path / "u", np.ones((4, 12), np.uint32), bands=4, rows=3)
    file = tmp_path / f"u.{suffix}"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(InputError) as error:
        number_units([tmp_path / "u"], bands=4, rows=3)
    found = {
        "signatures": {1: ("191", "48"), 48: ("128", "96")},
        "bands": {1: ("127", "128"), 8: ("120", "128")},
    }
    assert all(number in error.value.message for number in found[suffix][cut])


def test_missing_unit_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.signatures does not exist"):
        number_units([tmp_path / "gone"], bands=4, rows=3)


def test_band_task_refuses_a_file_that_shrank_after_numbering(tmp_path, write_bands):
    units = write_bands(tmp_path, np.zeros((9, 2), np.uint64), [9])
    (tmp_path / "unit-0.bands").write_bytes(b"x" * 80)
    with pytest.raises(InputError, match="80 bytes where 144 were expected"):
        band_edges(units, 2, 0, tmp_path / "edges")
    assert not (tmp_path / "edges").exists()


def test_truncated_edge_file_is_refused(tmp_path):
    (tmp_path / "edges").write_bytes(b"\0" * 24)
    with Components(tmp_path / "parents", 4) as components, pytest.raises(InputError, match="24 bytes"):
        components.union_file(tmp_path / "edges")


@pytest.mark.parametrize("edge", [[0, 4], [-1, 2]])
def test_edge_out_of_range_is_refused(tmp_path, edge):
    with Components(tmp_path / "parents", 4) as components, pytest.raises(InputError, match="0 to 3"):
        components.union(np.array([[0, 1], edge], np.int64))


def test_file_size_limit_is_a_storage_error_and_leaves_no_half_file(tmp_path):
    """A disk that gives no more space, by the limit on file sizes, which the kernel enforces likewise."""
    code = f"""
        import resource, signal
        from pathlib import Path
        import numpy as np
        from tsugiki.corpus.neardup.units import write_unit_index, create_array
        from tsugiki.errors import StorageError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for write in (
            lambda: write_unit_index(Path({str(tmp_path)!r}) / "u", np.ones((4000, 12), np.uint32), 4, 3),
            lambda: create_array(Path({str(tmp_path)!r}) / "a", "<i8", (40_000,)),
        ):
            try:
                write()
            except StorageError as error:
                print("refused:", error.message)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.count("refused:") == 2
    assert not list(tmp_path.glob("u*"))


def test_kill_while_writing_leaves_no_half_file(tmp_path, write_bands):
    """Killed as soon as the partial file is seen: the final name is absent, or holds all of it."""
    keys = np.zeros((3_000_000, 1), np.uint64)
    write_bands(tmp_path, keys, [len(keys)])
    code = f"""
        from pathlib import Path
        from tsugiki.corpus.neardup.bands import band_edges
        from tsugiki.corpus.neardup.units import UnitIndex
        directory = Path({str(tmp_path)!r})
        band_edges([UnitIndex(directory / "unit-0", 0, 3_000_000)], 1, 0, directory / "edges", memory_bytes=1)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "edges.partial").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert (tmp_path / "edges.partial").exists()
    assert not (tmp_path / "edges").exists()
    assert band_edges([UnitIndex(tmp_path / "unit-0", 0, 3_000_000)], 1, 0, tmp_path / "edges") == 2_999_999


@pytest.mark.parametrize("memory", [MINIMUM, 1 << 20])
def test_sorted_band_gives_every_document_once_in_the_order_of_key_and_number(tmp_path, memory, write_bands):
    """Also where one key is shared by more documents than fit, and for the smallest and largest keys."""
    rng = np.random.default_rng(2)
    keys = rng.integers(0, 2**64, 9000, dtype=np.uint64)
    keys[rng.random(9000) < 0.4] = keys[0]
    keys[rng.random(9000) < 0.1] = rng.choice([0, 1, 2**64 - 1, keys[0] ^ np.uint64(1)])
    keys[rng.random(9000) < 0.2] = 2**64 - 1
    units = write_bands(tmp_path, keys[:, None], [4000, 0, 4999, 1])
    chunks = [(k.copy(), d.copy()) for k, d in sorted_band(units, 1, 0, memory)]
    order = np.argsort(keys, kind="stable")
    assert np.array_equal(np.concatenate([d for _, d in chunks]), order)
    assert np.array_equal(np.concatenate([k for k, _ in chunks]), keys[order])
    assert (len(chunks) > 8) == (memory == MINIMUM)


def test_sort_kernel_sorts_large_buckets_of_mixed_keys():
    """Keys that agree in all bits that choose the bucket: an attacker's, or a very skewed corpus."""
    rng = np.random.default_rng(3)
    keys = (np.uint64(7) << np.uint64(60)) + rng.integers(0, 50, 500, dtype=np.uint64)
    numbers, starts = np.arange(500), np.empty(65, np.int64)
    out_keys, out_numbers = np.empty(500, np.uint64), np.empty(500, np.int64)
    kernels.sort_keys(keys, numbers, 500, np.uint64(0), np.uint64(58), starts, out_keys, out_numbers)
    order = np.argsort(keys, kind="stable")
    assert np.array_equal(out_numbers, order)
    assert np.array_equal(out_keys, keys[order])


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(0, LARGEST) | st.sampled_from([0, 1, 2**63, LARGEST]), max_size=60),
    capacity=st.integers(1, 20),
)
def test_passes_cover_every_value_once_and_fit(values, capacity):
    column = np.array(values, np.uint64)
    passes = plan_passes(lambda: [column[:7], column[7:]], column.size, capacity)
    for one in passes:
        assert one.count == ((column >= one.low) & (column <= one.high)).sum()
        assert one.count <= capacity or one.low == one.high
    assert sum(one.count for one in passes) == column.size
    assert all(a.high < b.low for a, b in itertools.pairwise(passes))


def test_pairs_of_runs_are_all_pairs_up_to_the_number_of_partners_and_then_the_first_ones(
    tmp_path, write_bands
):
    keys = np.array([5] * 4 + [9] * 7 + [1], np.uint64)[:, None]
    units = write_bands(tmp_path, keys, [6, 6])
    star = edges_of(units, 1, tmp_path / "edges")
    assert star == [(0, i) for i in (1, 2, 3)] + [(4, i) for i in range(5, 11)]
    pairs = edges_of(units, 1, tmp_path / "edges", partners=3)
    assert {p for p in pairs if p[0] < 4} == {(i, j) for j in range(4) for i in range(j)}
    assert {p for p in pairs if p[0] >= 4} == {(i, j) for j in range(5, 11) for i in range(4, min(j, 7))}
    assert len(set(pairs)) == len(pairs)


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30
    ),
    rng=st.randoms(use_true_random=False),
)
def test_components_equal_plain_sets_whatever_the_units(
    tmp_path_factory, keys, rng, write_bands, random_sizes, roots_of
):
    directory = tmp_path_factory.mktemp("units")
    table = np.array(keys, np.uint64)
    expected = oracle_components(table)
    for parts in (1, 3):
        units = write_bands(directory, table, random_sizes(rng, len(keys), parts))
        assert roots_of(units, 3, directory).tolist() == expected


def test_edge_files_have_the_same_bytes_for_one_pass_and_for_many(tmp_path, write_bands):
    rng = np.random.default_rng(4)
    keys = rng.integers(0, 20_000, (30_000, 1), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys[rng.random(30_000) < 0.2] = 77
    found = set()
    for number, memory in enumerate((1 << 28, 1 << 18, MINIMUM)):
        for sizes in ([30_000], [1, 9_999, 20_000]):
            units = write_bands(tmp_path, keys, sizes)
            band_edges(units, 1, 0, tmp_path / f"{number}", memory_bytes=memory, partners=2)
            found.add((tmp_path / f"{number}").read_bytes())
    assert len(found) == 1
    passes = plan_passes(lambda: [keys[:, 0].copy()], 30_000, 1024)
    assert len(passes) > 20


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20),
    st.randoms(use_true_random=False),
)
def test_components_do_not_depend_on_the_order_of_edges(tmp_path_factory, edges, rng):
    path = tmp_path_factory.mktemp("c") / "parents"
    shuffled = [(b, a) if rng.random() < 0.5 else (a, b) for a, b in edges]
    rng.shuffle(shuffled)
    results = []
    for chosen in (edges, shuffled):
        with Components(path, 12) as components:
            components.union(np.array(chosen, np.int64).reshape(-1, 2))
            results.append(components.roots().tolist())
            assert components.apart(np.array([[0, 1], [3, 3]])).tolist() == [
                results[-1][0] != results[-1][1],
                False,
            ]
    assert results[0] == results[1]
    assert not path.exists()


document = st.tuples(
    st.integers(0, 2**128 - 1).map("{:032x}".format),
    st.sampled_from([UNKNOWN_DATE, -5, 0, 1_700_000_000]),
    st.integers(1, 3),
    st.sampled_from([float("nan"), float("-inf"), 0.25, 0.5]),
)


def test_create_array_on_a_read_only_directory_is_a_storage_error(tmp_path):
    if os.geteuid() == 0:
        with pytest.raises(StorageError, match="no space|could not write"):
            create_array(tmp_path / "a", "|u1", (1 << 55,))
        return
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        create_array(tmp_path / "a", "<i8", (4,))


def test_memory_stays_bounded_while_the_documents_do_not(tmp_path):
    """Everything from bands to survivors over 1.5 M documents, with 12 MB of data beyond the start.

    One array of 8 bytes a document is 12 MB: an algorithm that holds one in memory ends with MemoryError.
    """
    count, copies = 1_500_000, 3
    rng = np.random.default_rng(6)
    groups = rng.integers(0, count // copies, count)
    noise = rng.integers(0, 2**64, (2, count), dtype=np.uint64)
    keys = np.where(
        rng.random((2, count)) < 0.9, groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), noise
    )
    parts = 6
    for number, part in enumerate(np.split(keys, parts, axis=1)):
        np.ascontiguousarray(part).tofile(tmp_path / f"u{number}.bands")
    code = f"""
        import resource
        from pathlib import Path
        import numpy as np
        from tsugiki.corpus.neardup.bands import band_edges
        from tsugiki.corpus.neardup.components import Components
        from tsugiki.corpus.neardup.survivors import choose_survivors, create_columns
        from tsugiki.corpus.neardup.survivors import kept_documents, summarise
        from tsugiki.corpus.neardup.units import UnitIndex

        directory, size = Path({str(tmp_path)!r}), {count // parts}
        units = [UnitIndex(directory / f"u{{i}}", i * size, size) for i in range({parts})]
        data = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
        limit = (data << 10) + (12 << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        for band in range(2):
            band_edges(units, 2, band, directory / f"{{band}}.edges", memory_bytes=6 << 20)
        with Components(directory / "parents", {count}) as components:
            components.union_files([directory / "0.edges", directory / "1.edges"])
            columns = create_columns(directory, {count})
            clusters = choose_survivors(components.roots(), columns, "newest", directory)
        kept_documents(clusters.survivor, directory / "kept")
        print(summarise(clusters).kept)
        try:
            np.ones({count}, np.int64)
        except MemoryError:
            print("an array of all documents does not fit")
    """
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    kept, word = run.stdout.splitlines()
    assert word == "an array of all documents does not fit"
    assert int(kept) == expected_clusters(keys)


def expected_clusters(keys):
    """The number of components, by label propagation: the smallest number wins until nothing changes."""
    labels = np.arange(keys.shape[1])
    inverse = [np.unique(band, return_inverse=True)[1] for band in keys]
    while True:
        before = labels.copy()
        for groups in inverse:
            smallest = np.full(groups.max() + 1, labels.size)
            np.minimum.at(smallest, groups, labels)
            labels = smallest[groups]
        if np.array_equal(before, labels):
            return int((labels == np.arange(labels.size)).sum())
