"""The held-out split on disk: against a plain Python oracle, order independence, the proof, faults."""

import hashlib
import random

import numpy as np
import pytest

from tsugiki.corpus.heldout import LOOSE_ROWS, histogram, hold_out
from tsugiki.corpus.minhash import jaccard, signature
from tsugiki.corpus.neardup.survivors import id_words
from tsugiki.corpus.neardup.units import number_units, write_unit_index
from tsugiki.errors import StageError

BANDS, ROWS = 40, 20
HASHES = BANDS * ROWS


def mixture(seed, groups=30):
    """Documents in groups of 1 to 4 that share most of their n-grams; (id, group, shingles)."""
    rng = np.random.default_rng(seed)
    documents = []
    for group in range(groups):
        core = rng.integers(0, 2**64, 300, dtype=np.uint64)
        for _ in range(int(rng.integers(1, 5))):
            own = rng.integers(0, 2**64, int(rng.integers(10, 60)), dtype=np.uint64)
            name = f"{int.from_bytes(rng.bytes(16)):032x}"
            documents.append((name, group, np.unique(np.concatenate([core, own]))))
    return documents


def split_of(directory, documents, *, parts=1, removed=(), signatures=None, **options):
    """Hold out of `documents`; `removed` are places of further documents that were not kept."""
    ids, sets = [d[0] for d in documents], [d[2] for d in documents]
    if signatures is None:
        signatures = np.stack([signature(values, HASHES) for values in sets])
    rows = list(range(len(documents)))
    for place in removed:  # a copy of document 0, which would join everything if it were looked at
        rows.insert(place, 0)
    kept = np.array([i for i in range(len(rows)) if i not in removed])
    bounds = np.linspace(0, len(rows), parts + 1).astype(int).tolist()
    stems = [directory / f"unit-{i}" for i in range(parts)]
    for stem, start, stop in zip(stems, bounds, bounds[1:], strict=False):
        write_unit_index(stem, signatures[rows[start:stop]], BANDS, ROWS)

    def shingles_of(indices):
        return (sets[i] for i in indices.tolist())

    settings = {"wanted": 8, "threshold": 0.5, "seed": 0, "shingles_of": shingles_of, **options}
    split = hold_out(
        number_units(stems, BANDS, ROWS),
        kept,
        id_words([ids[i] for i in rows]),
        scratch=directory / "scratch",
        hashes=HASHES,
        **settings,
    )
    assert not list((directory / "scratch").iterdir())
    return split


def oracle_held_out(documents, wanted, threshold, seed):
    """Plain Python: groups by exact similarity, then whole groups in the order of their hash."""
    groups = [{i} for i in range(len(documents))]
    for i in range(len(documents)):
        for j in range(i):
            if jaccard(documents[i][2], documents[j][2]) >= threshold:
                merged = groups[i] | groups[j]
                for k in merged:
                    groups[k] = merged
    distinct = {min(group): group for group in groups}.values()

    def order(group):
        name = min(documents[i][0] for i in group)
        return hashlib.blake2b(f"{seed}\n{name}".encode(), digest_size=8).digest()

    chosen = []
    for group in sorted(distinct, key=order):
        if len(chosen) + len(group) <= min(wanted, len(documents) - 1):
            chosen += group
    return sorted(chosen)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("memory", [1, 1 << 26])
def test_split_equals_plain_python_and_proves_the_distance(tmp_path, seed, memory):
    """The groups of the mixture are far apart, so the estimate finds exactly the exact groups."""
    documents = mixture(seed)
    split = split_of(tmp_path, documents, seed=seed, memory_bytes=memory, parts=3)
    assert split.held_out.tolist() == oracle_held_out(documents, 8, 0.5, seed)
    assert (split.groups, split.rounds) == (30, 1)
    held_out = set(split.held_out.tolist())
    for position, i in enumerate(split.held_out.tolist()):
        others = [d[2] for j, d in enumerate(documents) if j not in held_out]
        assert split.similarity[position] == pytest.approx(max(jaccard(documents[i][2], o) for o in others))
        shares = [np.intersect1d(documents[i][2], o).size / documents[i][2].size for o in others]
        assert split.containment[position] == pytest.approx(max(shares))
    assert split.similarity.max() < 0.5


def test_split_does_not_depend_on_order_or_units_but_on_the_seed(tmp_path):
    documents = mixture(4)

    def names(order, **options):
        return {order[i][0] for i in split_of(tmp_path, order, **options).held_out.tolist()}

    shuffled = random.Random(1).sample(documents, len(documents))
    assert names(documents) == names(shuffled, parts=5) == names(shuffled, parts=40)
    assert any(names(documents) != names(documents, seed=seed) for seed in (1, 2, 3))


def test_split_looks_at_kept_documents_only(tmp_path):
    documents = mixture(5)
    plain = split_of(tmp_path, documents)
    removed = split_of(tmp_path, documents, removed=(0, 7, 8, 40), parts=4)
    assert plain.held_out.tolist() == removed.held_out.tolist()
    assert plain.groups == removed.groups


def test_split_repairs_pairs_that_the_signatures_missed(tmp_path):
    """Random signatures: no pair is proposed, so only the exact comparison can find them."""
    documents = mixture(5)
    rng = np.random.default_rng(9)
    useless = rng.integers(0, 2**32, (len(documents), HASHES), dtype=np.uint32)
    split = split_of(tmp_path, documents, signatures=useless)
    assert split.rounds > 1
    assert split.similarity.max() < 0.5


def test_split_of_one_chain_is_refused_with_figures(tmp_path):
    core = np.arange(300, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    documents = [(f"{i:032x}", 0, np.sort(np.append(core, np.uint64(1000 + i)))) for i in range(20)]
    with pytest.raises(StageError, match="smallest of 1 groups has 20"):
        split_of(tmp_path, documents)


def test_split_passes_over_a_group_that_is_too_large(tmp_path):
    documents = mixture(6)
    giant = [(f"{i:032x}", -1, documents[0][2]) for i in range(40)]
    split = split_of(tmp_path, [*giant, *documents[4:]], wanted=5)
    assert split.largest_group >= 40
    assert 0 < split.held_out.size <= 5
    assert split.held_out.min() >= 40


@pytest.mark.parametrize("change", [-1, 1])
def test_split_with_too_few_or_too_many_texts_is_refused(tmp_path, change):
    documents = mixture(7)
    sets = [d[2] for d in documents]

    def shingles_of(indices):
        chosen = [sets[i] for i in indices.tolist()]
        if indices.size < wanted:
            return chosen
        return chosen[:-1] if change < 0 else [*chosen, sets[0]]

    wanted = 20  # so that only the training documents are the wrong number
    expected = r"\d+ texts came for \d+"
    with pytest.raises(StageError, match=expected):
        split_of(tmp_path, documents, shingles_of=shingles_of)


def test_loose_bands_propose_pairs_at_the_threshold():
    """The docstring's figure: with 160 bands of 5 a pair of similarity 0.5 is proposed with 0.994."""
    bands = HASHES // LOOSE_ROWS
    assert 1 - (1 - 0.5**LOOSE_ROWS) ** bands == pytest.approx(0.994, abs=5e-4)
    assert 1 - (1 - 0.3**LOOSE_ROWS) ** bands == pytest.approx(0.32, abs=5e-3)


def test_histogram_counts_every_value_once():
    bins = histogram([0.0, 0.04, 0.05, 0.999, 1.0])
    assert [entry["documents"] for entry in bins][:2] == [2, 1]
    assert bins[-1] == {"from": 0.95, "to": 1.0, "documents": 2}
    assert sum(entry["documents"] for entry in bins) == 5
