"""Statistics of hosts, the rules over them, and the samples for appeal."""

import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsugiki.artifacts.documents import read_jsonl
from tsugiki.corpus.hosts import statistics
from tsugiki.corpus.hosts.appeals import AppealSettings, collect_appeals, word_finder, write_appeals
from tsugiki.corpus.hosts.statistics import (
    HostRules,
    blocked_hosts,
    merge,
    partial,
    write_partial,
)
from tsugiki.errors import InputError

DATING = "host:dating_share>0.001"
NG = "host:ng_share>0.005"


def documents(rows):
    """rows: (host, text, dating names, NG expressions)."""
    hosts, texts, dating, ng = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "id": pa.array([f"d{i:05d}" for i in range(len(rows))], pa.string()),
            "url": pa.array([f"http://{host}/{i}" for i, host in enumerate(hosts)], pa.string()),
            "host": pa.array(hosts, pa.string()),
            "text": pa.array(texts, pa.large_string()),
            "dating_names": pa.array(dating, pa.int64()),
            "ng_expressions": pa.array(ng, pa.int64()),
        }
    )


def merged(tmp_path, tables, rules=None, partitions=None):
    paths = []
    for number, table in enumerate(tables):
        paths.append(tmp_path / f"unit-{number}.parquet")
        write_partial(paths[-1], partial(table, (rules or HostRules()).scope))
    target = tmp_path / "hosts.parquet"
    summary = merge(paths, target, rules or HostRules(), partitions)
    return summary, pq.read_table(target).to_pylist()


def test_partial_counts_documents_characters_and_hits():
    rows = [("b.jp", "あいう", 0, 2), ("a.jp", "xy", 3, 0), ("b.jp", "z", 1, 0), (None, "n", 0, None)]
    assert partial(documents(rows)).to_pylist() == [
        {"host": "", "documents": 1, "characters": 1, "dating_documents": 0, "ng_documents": 0},
        {"host": "a.jp", "documents": 1, "characters": 2, "dating_documents": 1, "ng_documents": 0},
        {"host": "b.jp", "documents": 2, "characters": 4, "dating_documents": 1, "ng_documents": 1},
    ]


def test_partial_takes_letters_where_there_are_and_zero_for_absent_columns():
    table = pa.table({"host": ["a.jp"], "letters": pa.array([7], pa.int64())})
    row = {"host": "a.jp", "documents": 1, "characters": 7, "dating_documents": 0, "ng_documents": 0}
    assert partial(table).to_pylist() == [row]
    assert partial(table.slice(1)).num_rows == 0


def test_scope_domain_adds_hosts_of_one_registered_domain():
    rows = [
        ("a.x.co.jp", "t", 0, 0),
        ("B.x.co.jp.", "t", 0, 0),
        ("x.co.jp", "t", 0, 0),
        ("10.0.0.1", "t", 0, 0),
    ]
    counts = {row["host"]: row["documents"] for row in partial(documents(rows), "domain").to_pylist()}
    assert counts == {"10.0.0.1": 1, "x.co.jp": 3}
    assert partial(documents(rows), "host").num_rows == 4


def test_shares_are_strict_at_equality(tmp_path):
    def host(name, size, dating, ng):
        return [(name, "t", int(i < dating), int(i < ng)) for i in range(size)]

    rows = [
        *host("dating-equal", 1000, 1, 0),
        *host("dating-above", 999, 1, 0),
        *host("ng-equal", 200, 0, 1),
        *host("ng-above", 199, 0, 1),
        *host("both", 10, 1, 1),
        *host("clean", 10, 0, 0),
        *host("", 10, 5, 5),
    ]
    summary, found = merged(tmp_path, [documents(rows)])
    reasons = {row["host"]: row["blocked_by"] for row in found}
    assert reasons == {
        "": [],
        "both": [DATING, NG],
        "clean": [],
        "dating-above": [DATING],
        "dating-equal": [],
        "ng-above": [NG],
        "ng-equal": [],
    }
    assert summary.as_dict() == {
        "hosts": 7,
        "documents": len(rows),
        "blocked_hosts": 3,
        "blocked_documents": 999 + 199 + 10,
        "reasons": {DATING: 2, NG: 2},
    }


def test_rules_can_be_loosened_turned_off_and_kept_from_small_hosts(tmp_path):
    rows = [("a.jp", "t", 1, 1)] * 4 + [("a.jp", "t", 0, 0)] * 4
    rules = HostRules(dating_share=None, ng_share=0.4)
    assert merged(tmp_path, [documents(rows)], rules)[1][0]["blocked_by"] == ["host:ng_share>0.4"]
    assert merged(tmp_path, [documents(rows)], HostRules(minimum_documents=9))[1][0]["blocked_by"] == []
    assert merged(tmp_path, [documents(rows)], HostRules(minimum_documents=8))[1][0]["blocked_by"]
    for wrong in ({"ng_share": 1.5}, {"minimum_documents": 0}, {"scope": "planet"}, {"nonsense": 1}):
        with pytest.raises(ValidationError):
            HostRules(**wrong)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b.jp", "c", "あ", "zz", None]), st.integers(0, 1)), max_size=60
    ),
    st.integers(1, 5),
    st.integers(1, 6),
)
@settings(max_examples=25, deadline=None)
def test_merge_equals_a_plain_count_for_any_cut_of_the_work(tmp_path_factory, rows, units, partitions):
    tmp_path = tmp_path_factory.mktemp("hosts")
    table = documents([(host, "xx", dating, 0) for host, dating in rows])
    tables = [table.take(pa.array(range(unit, len(rows), units), pa.int64())) for unit in range(units)]
    summary, found = merged(tmp_path, tables, partitions=partitions)
    names = ["xn--l8j" if host == "あ" else host or "" for host, _ in rows]
    expected = Counter(names)
    hits = Counter(name for name, (_, dating) in zip(names, rows, strict=True) if dating)
    assert [(row["host"], row["documents"], row["dating_documents"]) for row in found] == [
        (host, expected[host], hits[host]) for host in sorted(expected)
    ]
    assert summary.documents == len(rows)


def test_merge_gives_the_same_bytes_whatever_partitions_order_and_leftovers(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "_ROW_GROUP", 50)
    rng = random.Random(3)
    rows = [
        (f"h{rng.randrange(400)}.jp", "t", int(rng.random() < 0.001), int(rng.random() < 0.01))
        for _ in range(3000)
    ]
    table = documents(rows)
    paths = []
    for unit in range(7):
        paths.append(tmp_path / f"{unit}.parquet")
        write_partial(paths[-1], partial(table.take(list(range(unit, 3000, 7)))))
    (tmp_path / "0.parquet.work").mkdir()
    results = set()
    for partitions, order in ((None, paths), (1, paths), (4, paths), (13, paths[::-1])):
        target = tmp_path / "hosts.parquet"
        (tmp_path / "hosts.parquet.work").mkdir()  # what a killed run leaves
        summary = merge(order, target, HostRules(), partitions)
        results.add((target.read_bytes(), repr(summary)))
        assert not (tmp_path / "hosts.parquet.work").exists()
    assert len(results) == 1


def test_ranges_hold_about_equal_numbers_of_rows(tmp_path):
    rows = [(f"h{i:05d}.jp", "t", 0, 0) for i in range(20_000)]
    path = tmp_path / "unit.parquet"
    write_partial(path, partial(documents(rows)))
    bounds = statistics._bounds([path], 8)
    assert len(bounds) == 7
    sizes = [piece.num_rows for piece in statistics._cut(pq.read_table(path), bounds)]
    assert sum(sizes) == 20_000
    assert max(sizes) < 1.3 * 20_000 / 8


def test_merge_of_damaged_or_foreign_partials_is_an_input_error(tmp_path):
    path = tmp_path / "unit.parquet"
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"unit\.parquet can't be read"):
        merge([path], tmp_path / "hosts.parquet", HostRules())
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(InputError, match="holds no host counts"):
        merge([path], tmp_path / "hosts.parquet", HostRules())
    assert not (tmp_path / "hosts.parquet").exists()


def test_blocked_hosts_mark_documents_and_survive_pickle(tmp_path):
    import pickle

    rows = [("bad.jp", "t", 1, 1), ("sub.ng.jp", "t", 0, 1), ("good.jp", "t", 0, 0), (None, "t", 1, 1)]
    merged(tmp_path, [documents(rows)])
    blocked = blocked_hosts(tmp_path / "hosts.parquet")
    for members in (blocked, pickle.loads(pickle.dumps(blocked))):  # noqa: S301
        assert len(members) == 2
        assert "bad.jp" in members
        assert "BAD.jp." in members
        assert "good.jp" not in members
        assert None not in members
        assert members.mark(documents(rows)["host"]) == [(DATING, NG), (NG,), (), ()]
    merged(tmp_path, [documents(rows)], HostRules(scope="domain"))
    assert blocked_hosts(tmp_path / "hosts.parquet", "domain").reasons_of("other.ng.jp") == (NG,)


def test_blocked_hosts_of_a_clean_corpus_are_none(tmp_path):
    summary, _ = merged(tmp_path, [documents([("good.jp", "t", 0, 0)])])
    assert summary.blocked_hosts == 0
    assert len(blocked_hosts(tmp_path / "hosts.parquet")) == 0
    assert "good.jp" not in blocked_hosts(tmp_path / "hosts.parquet")


def test_merge_without_documents_writes_an_empty_table(tmp_path):
    summary, found = merged(tmp_path, [documents([])])
    assert (summary.hosts, found) == (0, [])


def test_word_finder_takes_the_first_then_the_longest():
    find = word_finder(["愛", "出会い", "出会い系", "", "系サイト"])
    assert find("この出会い系サイト") == (2, 6)
    assert find("系サイト愛") == (0, 4)
    assert find("何もない") is None
    assert word_finder([])("愛") is None


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=6), st.text("ab", max_size=12))
def test_word_finder_equals_a_scan_of_every_position(words, text):
    expected = None
    for start in range(len(text)):
        fits = [word for word in words if text.startswith(word, start)]
        if fits:
            expected = (start, start + max(map(len, fits)))
            break
    assert word_finder(words)(text) == expected


def appeal_rows(tmp_path, order):
    rows = [("bad.jp", "前" * 100 + f"出会い系{i}" + "後" * 100, 1, 0) for i in range(5)]
    rows += [("bad.jp", f"普通の文{i}", 0, 0) for i in range(3)]
    rows += [("small.jp", "下品な言葉がここ", 0, 2), ("good.jp", "良い文", 0, 0)]
    table = documents(rows)
    merged(tmp_path, [table])
    tables = [table.take([i]) for i in order(len(rows))]
    finders = {"dating": word_finder(["出会い系"]), "ng": word_finder(["absent"])}
    return collect_appeals(
        tables, tmp_path / "hosts.parquet", finders, AppealSettings(documents=2, characters=10)
    )


def test_appeals_show_the_expression_its_surroundings_and_an_innocent_document(tmp_path):
    rows = appeal_rows(tmp_path, range)
    assert [(row["host"], row["kind"], row["id"]) for row in rows] == [
        ("bad.jp", "dating", "d00000"),
        ("bad.jp", "dating", "d00001"),
        ("bad.jp", "none", "d00005"),
        ("small.jp", "ng", "d00008"),
    ]
    assert rows[0]["expression"] == "出会い系"
    assert rows[0]["text"] == "前" * 10 + "出会い系" + "0" + "後" * 9
    assert rows[0]["documents"] == 8
    assert rows[0]["blocked_by"] == [DATING]
    assert rows[3]["expression"] is None
    assert rows[3]["text"] == "下品な言葉がここ"
    write_appeals(tmp_path / "appeals.jsonl", rows)
    assert list(read_jsonl(tmp_path / "appeals.jsonl")) == rows


def test_appeals_do_not_depend_on_the_order_of_documents(tmp_path):
    def shuffled(count):
        return random.Random(5).sample(range(count), count)

    assert appeal_rows(tmp_path, shuffled) == appeal_rows(tmp_path, lambda n: reversed(range(n)))


def test_appeals_list_the_largest_hosts_first_and_no_more_than_asked(tmp_path):
    rows = [(f"h{i}.jp", "x", 1, 0) for i in range(20) for _ in range(1 + i % 5)]
    table = documents(rows)
    merged(tmp_path, [table])
    found = collect_appeals([table], tmp_path / "hosts.parquet", {}, AppealSettings(documents=1, hosts=3))
    assert [row["host"] for row in found] == ["h14.jp", "h19.jp", "h4.jp"]
    assert collect_appeals([table], tmp_path / "hosts.parquet", {}, AppealSettings(hosts=0)) == []
