"""Which document of a cluster is kept, what the others point to, and re-hydration weights."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.neardup.survivors import (
    FINEWEB2_WEIGHTS,
    NO_SURVIVOR,
    UNKNOWN_DATE,
    DocumentColumns,
    choose_survivors,
    create_columns,
    epoch_seconds,
    id_text,
    id_words,
    kept_documents,
    summarise,
    weight_of,
)
from tsugiki.errors import InputError

MINIMUM = 1  # bytes: the smallest memory budget that a task accepts; it takes 1,024 documents a pass then


def columns_of(documents):
    """Columns of (id, date, characters, score)."""
    ids, dates, characters, scores = zip(*documents, strict=True)
    return DocumentColumns(
        np.array(dates, np.int64), np.array(characters, np.int64), np.array(scores, np.float64), id_words(ids)
    )


RANKS = {
    "first": lambda _: (),
    "newest": lambda d: (d[1], d[2]),
    "longest": lambda d: (d[2], d[1]),
    "best": lambda d: (d[3] if d[3] == d[3] else -np.inf, d[2], d[1]),
}


def oracle_survivors(documents, roots, keep, excluded):
    """Plain Python: the best of each group by its rank, then the smallest id."""
    chosen = []
    for root in roots:
        members = [i for i, other in enumerate(roots) if other == root and not excluded[i]]
        members.sort(key=lambda i: documents[i][0])
        members.sort(key=lambda i: RANKS[keep](documents[i]), reverse=True)
        chosen.append(members[0] if members else NO_SURVIVOR)
    return chosen


document = st.tuples(
    st.integers(0, 2**128 - 1).map("{:032x}".format),
    st.sampled_from([UNKNOWN_DATE, -5, 0, 1_700_000_000]),
    st.integers(1, 3),
    st.sampled_from([float("nan"), float("-inf"), 0.25, 0.5]),
)


@settings(max_examples=150, deadline=None)
@given(
    documents=st.lists(document, min_size=1, max_size=14, unique_by=lambda d: d[0]),
    keep=st.sampled_from(sorted(RANKS)),
    data=st.data(),
)
def test_survivors_and_sizes_equal_plain_python(tmp_path_factory, documents, keep, data):
    labels = data.draw(st.lists(st.integers(0, 4), min_size=len(documents), max_size=len(documents)))
    roots = [labels.index(label) for label in labels]
    excluded = data.draw(st.lists(st.booleans(), min_size=len(documents), max_size=len(documents)))
    clusters = choose_survivors(
        np.array(roots),
        columns_of(documents),
        keep,
        tmp_path_factory.mktemp("s"),
        excluded=np.array(excluded),
    )
    assert clusters.survivor.tolist() == oracle_survivors(documents, roots, keep, excluded)
    assert clusters.size.tolist() == [labels.count(label) for label in labels]


def test_survivors_by_id_do_not_depend_on_order_units_or_memory(
    tmp_path, write_bands, random_sizes, roots_of
):
    rng = np.random.default_rng(5)
    count = 4000
    keys = rng.integers(0, 6000, (count, 3), dtype=np.uint64)
    documents = [
        (
            f"{int.from_bytes(rng.bytes(16)):032x}",
            int(rng.integers(3)),
            int(rng.integers(3)),
            float(rng.integers(3)),
        )
        for _ in range(count)
    ]
    outcomes = set()
    for seed, parts, memory in ((0, 1, 1 << 26), (1, 7, 1 << 26), (2, 3, MINIMUM), (3, 50, MINIMUM)):
        order = random.Random(seed).sample(range(count), count)
        units = write_bands(tmp_path, keys[order], random_sizes(random.Random(seed), count, parts))
        roots = roots_of(units, 3, tmp_path, memory_bytes=memory)
        shuffled = [documents[i] for i in order]
        clusters = choose_survivors(roots, columns_of(shuffled), "best", tmp_path)
        survivors = [shuffled[i][0] for i in clusters.survivor.tolist()]
        outcomes.add(
            tuple(sorted(zip((d[0] for d in shuffled), survivors, clusters.size.tolist(), strict=True)))
        )
    assert len(outcomes) == 1
    assert 1 < len({survivor for _, survivor, _ in outcomes.pop()}) < count


def test_excluded_documents_leave_their_cluster_to_the_next(tmp_path):
    documents = [(f"{i:032x}", 0, 10 - i, 0.0) for i in range(5)]
    roots = np.array([0, 0, 0, 3, 4])
    excluded = np.array([True, False, False, True, False])
    clusters = choose_survivors(roots, columns_of(documents), "longest", tmp_path, excluded=excluded)
    assert clusters.survivor.tolist() == [1, 1, 1, NO_SURVIVOR, 4]
    assert kept_documents(clusters.survivor, tmp_path / "kept").tolist() == [1, 4]
    summary = summarise(clusters)
    assert (summary.documents, summary.kept, summary.clusters, summary.largest) == (5, 2, 1, 3)
    assert (summary.with_older, summary.without_survivor) == (0, 1)


def test_survivors_of_other_lengths_or_policies_are_refused(tmp_path):
    columns = columns_of([(f"{1:032x}", 0, 1, 0.0)])
    with pytest.raises(InputError, match="2 roots and no exclusions for 1 documents"):
        choose_survivors(np.zeros(2, np.int64), columns, "first", tmp_path)
    with pytest.raises(InputError, match='keep is "oldest"'):
        choose_survivors(np.zeros(1, np.int64), columns, "oldest", tmp_path)


def test_survivors_of_no_documents_are_none(tmp_path):
    columns = create_columns(tmp_path, 0)
    clusters = choose_survivors(np.empty(0, np.int64), columns, "newest", tmp_path)
    assert clusters.survivor.size == 0
    assert summarise(clusters).kept == 0


def test_columns_keep_ids_in_the_order_of_their_text(tmp_path):
    columns = create_columns(tmp_path, 3)
    names = ["00ff" + "0" * 28, "f" * 32, "0" * 31 + "1"]
    columns.id[:] = id_words(names)
    assert [id_text(row) for row in columns.id] == names
    assert sorted(names) == [id_text(row) for row in sorted(columns.id.tolist())]


def test_dates_become_seconds_and_others_are_unknown():
    dates = [
        "1970-01-02",
        "1970-01-01T00:00:01Z",
        "1970-01-01T09:00:00+09:00",
        None,
        "",
        "soon",
        "1969-12-31",
    ]
    expected = [86400, 1, 0, UNKNOWN_DATE, UNKNOWN_DATE, UNKNOWN_DATE, -86400]
    assert epoch_seconds(dates).tolist() == expected


def test_default_weights_are_the_table_of_fineweb_2():
    """corpus.md §3.2: {1: 1, 2: 2, 3-4: 3, 5-99: 5, 100-999: 8, >= 1000: 1}."""
    table = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5, 99: 5, 100: 8, 999: 8, 1000: 1, 10**9: 1}
    assert weight_of(list(table)).tolist() == list(table.values())
    assert weight_of(np.empty(0, np.int64)).size == 0
    assert weight_of([[1, 7]], ((1, 0), (6, 2))).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((), "ascend from 1"),
        (((2, 1),), "ascend from 1"),
        (((1, 1), (5, 2), (5, 3)), "ascend from 1"),
        (((1, 1), (5, 2), (3, 3)), "ascend from 1"),
        (((1, -1),), "-1 is negative"),
        (((1, 1.5),), "no pair of whole numbers"),
        (((1, True),), "no pair of whole numbers"),
        (((1, 1, 1),), "no pair of whole numbers"),
    ],
)
def test_weights_of_another_form_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        weight_of([1], table)


def test_weight_of_an_empty_cluster_is_refused():
    with pytest.raises(InputError, match="cluster of 0 documents"):
        weight_of([3, 0], FINEWEB2_WEIGHTS)
