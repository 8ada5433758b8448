"""Verified pairs, and new documents against the index of an older corpus."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.minhash import SIGNATURE_VERSION, jaccard, shingles, signature
from tsugiki.corpus.neardup.bands import band_edges, read_pairs
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.index import (
    Scheme,
    edges_to_index,
    first_nodes,
    id_of_older,
    open_index,
    write_index,
    write_index_band,
)
from tsugiki.corpus.neardup.survivors import choose_survivors, create_columns, id_words, summarise
from tsugiki.corpus.neardup.units import UnitIndex, blocks_of, number_units, write_unit_index
from tsugiki.corpus.neardup.verify import (
    CANDIDATE_PARTNERS,
    compare_candidates,
    distinct_pairs,
    write_candidates,
)
from tsugiki.errors import InputError, StageError

SCHEME = Scheme(ngram=3, bands=4, rows=2)


def write_pairs(path, pairs):
    np.array(pairs, "<i8").reshape(-1, 2).tofile(path)
    return path


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), min_size=1, max_size=4
    )
)
def test_distinct_pairs_are_the_sorted_set_of_all(tmp_path_factory, files):
    directory = tmp_path_factory.mktemp("pairs")
    paths = [write_pairs(directory / f"{i}", pairs) for i, pairs in enumerate(files)]
    found = [tuple(p) for block in distinct_pairs(paths, 10, 1) for p in block.tolist()]
    assert found == sorted(set(itertools.chain(*files)))


def test_distinct_pairs_in_many_passes_and_for_one_left_document_of_too_many(tmp_path):
    """The least memory is 1,024 pairs: 5,000 of one document must be cut by their right document."""
    rng = np.random.default_rng(1)
    pairs = [(7, i) for i in range(8, 5008)] + [
        (int(a), int(a) + 1 + int(b)) for a, b in rng.integers(0, 5000, (9000, 2))
    ]
    paths = [write_pairs(tmp_path / f"{i}", pairs[i::2] + pairs[:300]) for i in range(2)]
    blocks = list(distinct_pairs(paths, 10_010, 1))
    assert max(len(block) for block in blocks) <= 1024
    assert [tuple(p) for block in blocks for p in block.tolist()] == sorted(set(pairs))


def texts_with_edits(seed, groups, copies):
    """Random texts, each with copies that differ in a few characters."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(groups):
        base = rng.integers(0x3042, 0x3090, 120)
        for _ in range(copies):
            edited = base.copy()
            places = rng.integers(0, 120, int(rng.integers(0, 25)))
            edited[places] = rng.integers(0x3042, 0x3090, places.size)
            texts.append("".join(map(chr, edited)))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("memory", [1, 1 << 24])
@pytest.mark.parametrize("size", [7, 1000])
def test_verified_pairs_are_exactly_those_that_are_alike_whatever_the_batches(tmp_path, memory, size):
    """One band in which all documents collide: only real similarity may join them."""
    texts = texts_with_edits(2, groups=4, copies=4)
    sets = [shingles(text, 3) for text in texts]
    np.zeros(len(texts), "<u8").tofile(tmp_path / "u.bands")
    units = [UnitIndex(tmp_path / "u", 0, len(texts))]
    band_edges(units, 1, 0, tmp_path / "0", partners=CANDIDATE_PARTNERS)
    band_edges(units, 1, 0, tmp_path / "1", partners=1)
    asked = []

    def shingles_of(documents):
        assert (np.diff(documents) > 0).all()
        asked.append(documents.size)
        return (sets[i] for i in documents.tolist())

    candidates = tmp_path / "candidates"
    count = write_candidates([tmp_path / "0", tmp_path / "1"], len(texts), candidates, memory_bytes=memory)
    pairs = list(itertools.combinations(range(len(texts)), 2))
    assert count == len(pairs)
    found = []
    for number, batch in enumerate(blocks_of(count, size)):
        target = tmp_path / f"alike-{number}"
        confirmed = compare_candidates(candidates, batch, target, shingles_of, 0.5, memory_bytes=memory)
        written = [tuple(pair) for block in read_pairs(target) for pair in block.tolist()]
        assert len(written) == confirmed
        found += written
    assert found == [(a, b) for a, b in pairs if jaccard(sets[a], sets[b]) >= 0.5]
    assert 0 < len(found) < len(pairs)
    assert (len(asked) > 10) == (memory == 1 or size < len(pairs))


def test_candidates_cut_off_after_counting_are_refused(tmp_path):
    path = write_pairs(tmp_path / "pairs", [(0, 1), (0, 2)])
    with pytest.raises(InputError, match="ends within the pairs 1 to 2"):
        compare_candidates(path, slice(1, 3), tmp_path / "alike", lambda _: [], 0.9)
    assert not (tmp_path / "alike").exists()


@pytest.mark.parametrize("texts", [1, 3])
def test_verification_with_the_wrong_number_of_texts_is_refused(tmp_path, texts):
    path = write_pairs(tmp_path / "pairs", [(0, 1), (0, 2)])

    def shingles_of(documents):
        count = documents.size if documents.size == 1 else texts
        return [np.arange(3, dtype=np.uint64)] * count

    with pytest.raises(StageError, match=f"{texts} texts"):
        compare_candidates(path, slice(0, 2), tmp_path / "alike", shingles_of, 0.9)


def make_units(directory, name, texts, parts=2):
    """Unit indexes of texts, cut into parts."""
    hashes = SCHEME.bands * SCHEME.rows
    table = np.stack([signature(shingles(text, SCHEME.ngram), hashes) for text in texts])
    stems = [directory / f"{name}-{i}" for i in range(parts)]
    for stem, part in zip(stems, np.array_split(table, parts), strict=True):
        write_unit_index(stem, part, SCHEME.bands, SCHEME.rows)
    return number_units(stems, SCHEME.bands, SCHEME.rows)


def cluster(directory, units, ids, older=(), memory=1 << 20):
    """The whole way from units to survivors, with older indexes."""
    directory.mkdir(exist_ok=True)
    documents = len(ids)
    nodes = documents + sum(index.documents for index in older)
    with Components(directory / "parents", nodes) as components:
        for band in range(SCHEME.bands):
            band_edges(units, SCHEME.bands, band, directory / "edges", memory_bytes=memory)
            components.union_file(directory / "edges")
            for index, first in zip(older, first_nodes(documents, older), strict=True):
                edges_to_index(
                    *(units, SCHEME.bands, band, directory / "old"),
                    directory=index.directory,
                    scheme=SCHEME,
                    first=first,
                    memory_bytes=memory,
                )
                components.union_file(directory / "old")
        columns = create_columns(directory, documents)
        columns.id[:] = id_words(ids)
        return choose_survivors(components.roots(), columns, "first", directory, older=older)


def save(directory, units, ids, clusters):
    for band in range(SCHEME.bands):
        write_index_band(units, SCHEME.bands, band, directory)
    write_index(directory, SCHEME, id_words(ids), clusters.survivor, clusters.size)
    return open_index(directory, SCHEME)


def names(prefix, count):
    return [f"{prefix}{i:030x}" for i in range(count)]


OLD = [
    "the old text about trees",
    "another old page on rivers",
    "the old text about trees",
    "銀行の窓口は三時まで",
]
NEW = [
    "a quite different document",
    "the old text about trees",
    "銀行の窓口は三時まで",
    "a quite different document",
    "the old text about trees",
    "0123456789 none of all this",
]


def old_index(directory):
    directory.mkdir()
    units = make_units(directory, "old", OLD)
    return save(directory / "index", units, names("aa", 4), cluster(directory, units, names("aa", 4)))


@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_new_documents_join_the_survivors_of_an_older_corpus(tmp_path, memory):
    older = [old_index(tmp_path / "old")]
    units = make_units(tmp_path, "new", NEW, parts=3)
    # the new ids are smaller, so the policy alone would keep the new documents
    clusters = cluster(tmp_path / "work", units, names("00", 6), older, memory)
    survivors = [id_of_older(node, 6, older) if node >= 6 else node for node in clusters.survivor.tolist()]
    trees, bank = names("aa", 4)[0], names("aa", 4)[3]
    assert survivors == [0, trees, bank, 0, trees, 5]
    assert clusters.size.tolist() == [2, 4, 2, 2, 4, 1]
    summary = summarise(clusters)
    assert (summary.kept, summary.with_older, summary.clusters) == (2, 3, 1)


def test_a_third_corpus_is_joined_to_both_indexes_and_the_first_wins(tmp_path):
    first = old_index(tmp_path / "old")
    units = make_units(tmp_path, "new", NEW)
    clusters = cluster(tmp_path / "work", units, names("bb", 6), [first])
    second = save(tmp_path / "second", units, names("bb", 6), clusters)
    assert second.survivors.tolist() == [0, -1, -1, 0, -1, 5]
    texts = ["the old text about trees", "a quite different document", "new!"]
    older = [first, second]
    units = make_units(tmp_path, "third", texts)
    found = cluster(tmp_path / "work", units, names("cc", 3), older).survivor.tolist()
    assert [id_of_older(node, 3, older) for node in found[:2]] == [names("aa", 4)[0], names("bb", 6)[0]]
    assert found[2] == 2


def test_cluster_that_reaches_into_two_indexes_keeps_the_first_and_counts_both(tmp_path):
    indexes = []
    for prefix in ("aa", "bb"):
        (tmp_path / prefix).mkdir()
        units = make_units(tmp_path / prefix, "u", ["one and the same text"] * 2)
        ids = names(prefix, 2)
        indexes.append(save(tmp_path / prefix / "i", units, ids, cluster(tmp_path / prefix, units, ids)))
    units = make_units(tmp_path, "new", ["one and the same text"] * 3)
    clusters = cluster(tmp_path / "work", units, names("00", 3), indexes)
    assert {id_of_older(node, 3, indexes) for node in clusters.survivor.tolist()} == {names("aa", 2)[0]}
    assert clusters.size.tolist() == [7, 7, 7]


def test_old_documents_without_a_survivor_take_nothing_with_them(tmp_path):
    """All copies were excluded from the old corpus (a blocked host): the text is not published there."""
    (tmp_path / "old").mkdir()
    units = make_units(tmp_path / "old", "u", OLD)
    clusters = cluster(tmp_path / "old", units, names("aa", 4))
    survivor = np.where(clusters.survivor == 0, -1, clusters.survivor)
    for band in range(SCHEME.bands):
        write_index_band(units, SCHEME.bands, band, tmp_path / "index")
    write_index(tmp_path / "index", SCHEME, id_words(names("aa", 4)), survivor, clusters.size)
    older = [open_index(tmp_path / "index", SCHEME)]
    found = cluster(tmp_path / "work", make_units(tmp_path, "new", NEW), names("00", 6), older)
    assert found.survivor.tolist()[1] == 1
    assert found.survivor.tolist()[2] >= 6


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Scheme(5, 4, 2), "ngram = 3 where this run has 5"),
        (Scheme(3, 2, 4), "bands = 4 where this run has 2"),
        (Scheme(3, 4, 1), "rows = 2 where this run has 1"),
    ],
)
def test_index_of_another_scheme_is_refused_with_both_values(tmp_path, other, message):
    index = old_index(tmp_path / "old")
    with pytest.raises(InputError, match=message):
        open_index(index.directory, other)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", SIGNATURE_VERSION + 1, f"format = {SIGNATURE_VERSION + 1} where this run has"),
        ("probe", "00", "probe = 00 where this run has"),
        ("documents", 5, "64 bytes where 80 were expected"),
        ("documents", "four", "not the description of an index"),
        ("documents", -1, "not the description of an index"),
    ],
)
def test_index_of_another_format_or_size_is_refused(tmp_path, name, value, message):
    index = old_index(tmp_path / "old")
    facts = json.loads((index.directory / "index.json").read_text())
    (index.directory / "index.json").write_text(json.dumps({**facts, name: value}))
    with pytest.raises(InputError, match=message):
        open_index(index.directory, SCHEME)


@pytest.mark.parametrize("file", ["ids", "survivors", "sizes", "band-0003.keys", "band-0000.documents"])
def test_truncated_or_missing_index_files_are_refused(tmp_path, file):
    index = old_index(tmp_path / "old")
    path = index.directory / file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=rf"{file} has \d+ bytes where \d+ were expected"):
        open_index(index.directory, SCHEME)
    path.unlink()
    with pytest.raises(InputError, match=f"{file} does not exist"):
        open_index(index.directory, SCHEME)


def test_index_without_its_bands_is_not_finished(tmp_path):
    with pytest.raises(InputError, match=r"band-0000\.keys does not exist"):
        write_index(tmp_path, SCHEME, id_words(names("aa", 1)), np.zeros(1, np.int64), np.ones(1, np.int64))
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize("number", [4, -1])
def test_index_that_names_documents_out_of_range_is_refused(tmp_path, number):
    index = old_index(tmp_path / "old")
    for band in range(SCHEME.bands):
        np.full(4, number, "<i8").tofile(index.directory / f"band-{band:04d}.documents")
    units = make_units(tmp_path, "new", NEW)
    with pytest.raises(InputError, match="names a document beyond its 4"):
        for band in range(SCHEME.bands):
            edges_to_index(
                *(units, SCHEME.bands, band, tmp_path / "edges"),
                directory=index.directory,
                scheme=SCHEME,
                first=6,
            )
    with pytest.raises(InputError, match="first is 5, but there are 6"):
        edges_to_index(
            *(units, SCHEME.bands, 0, tmp_path / "edges"), directory=index.directory, scheme=SCHEME, first=5
        )


def test_edges_to_an_index_equal_plain_python(tmp_path):
    """Random keys with many collisions, in the least memory; each new document to the smallest survivor."""
    rng = np.random.default_rng(8)
    old, new = rng.integers(0, 900, 3000), rng.integers(0, 900, 4000)
    survivors = rng.integers(-1, 3000, 3000)
    for name, keys in (("old", old), ("new", new)):
        np.tile(keys.astype("<u8"), (SCHEME.bands, 1)).tofile(tmp_path / f"{name}.bands")
    for band in range(SCHEME.bands):
        write_index_band(
            [UnitIndex(tmp_path / "old", 0, 3000)], SCHEME.bands, band, tmp_path / "i", memory_bytes=1
        )
    write_index(tmp_path / "i", SCHEME, np.zeros((3000, 2), np.uint64), survivors, np.ones(3000, np.int64))
    edges_to_index(
        *([UnitIndex(tmp_path / "new", 0, 4000)], SCHEME.bands, 2, tmp_path / "edges"),
        directory=tmp_path / "i",
        scheme=SCHEME,
        first=4000,
        memory_bytes=1,
    )
    found = {tuple(pair) for block in read_pairs(tmp_path / "edges") for pair in block.tolist()}
    expected = set()
    for document, key in enumerate(new.tolist()):
        candidates = survivors[(old == key) & (survivors >= 0)]
        if candidates.size:
            expected.add((document, 4000 + int(candidates.min())))
    assert found == expected
