"""Tables good and bad: formats, joins, what is no score, gaps, averages, damage."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.artifacts.files import write_json
from tsugiki.artifacts.scores import COMPARISON, SCORES, write_scores
from tsugiki.errors import DataError, InputError, TsugikiError
from tsugiki.study.analysis import Asked, study_factors
from tsugiki.study.benchmarks import known_benchmarks
from tsugiki.study.budgets import read_budgets
from tsugiki.study.checks import check_averages, check_scores
from tsugiki.study.reading import cell_of, read_raw
from tsugiki.study.runs import read_runs
from tsugiki.study.sensitivity import assumed_shares, read_shares, sensitivity
from tsugiki.study.table import Columns, ScoreTable, read_table

ROWS = [("a", 0.1, 0.5, 0.3), ("b", 0.2, 0.4, 0.1), ("c", 0.9, 0.6, 0.2), ("d", 0.4, 0.1, 0.8)]
HEAD = ("model", "MMLU", "NIILC", "BBH")


def csv_file(path, head=HEAD, rows=ROWS, separator=","):
    lines = [separator.join(map(str, row)) for row in (head, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_table_is_the_same_from_every_format(tmp_path) -> None:
    records = [dict(zip(HEAD, row, strict=True)) for row in ROWS]
    files = [csv_file(tmp_path / "t.csv"), csv_file(tmp_path / "t.tsv", separator="\t")]
    for name, text in (
        ("t.json", json.dumps(records)),
        (
            "u.json",
            json.dumps({one["model"]: {k: v for k, v in one.items() if k != "model"} for one in records}),
        ),
        ("t.jsonl", "\n".join(map(json.dumps, records))),
        ("bom.csv", "\ufeff" + (tmp_path / "t.csv").read_text()),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        files.append(tmp_path / name)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    for file in (*files, tmp_path / "t.parquet"):
        table = read_table([file])
        assert (table.models, table.benchmarks) == (("a", "b", "c", "d"), HEAD[1:]), file
        assert table.scores_MB.tolist() == [list(row[1:]) for row in ROWS], file


def test_tables_are_joined_by_model_and_contradictions_refused(tmp_path) -> None:
    one = csv_file(tmp_path / "one.csv")
    two = csv_file(tmp_path / "two.csv", ("model", "BBH", "JSQuAD"), [("b", 0.1, 0.7), ("e", 0.5, 0.6)])
    table = read_table([one, two])
    assert table.models == ("a", "b", "c", "d", "e")
    assert table.benchmarks == ("MMLU", "NIILC", "BBH", "JSQuAD")
    assert table.column("JSQuAD")[1] == 0.7
    assert np.isnan(table.column("JSQuAD")[0])
    assert table.missing == 3 + 2
    other = csv_file(tmp_path / "other.csv", ("model", "BBH"), [("b", 0.2)])
    with pytest.raises(InputError, match=r"give b two scores on BBH: 0\.1 and 0\.2"):
        read_table([one, other])


def artifact(directory, rows):
    base = {"dataset": "d", "language": "ja", "domain": "", "cluster": None, "tokens": 1, "bytes": 2}
    directory.mkdir()
    write_scores(directory / SCORES, [{**base, **row} for row in rows])
    return directory


def test_table_of_evaluate_artifacts_averages_samples_within_the_item(tmp_path) -> None:
    rows = []
    for number, model in enumerate("abcd"):
        rows += [
            {"model": model, "task": "t", "item": "1", "score": 1.0, "sample": 0},
            {"model": model, "task": "t", "item": "1", "score": 0.0, "sample": 1},
            {"model": model, "task": "t", "item": "2", "score": number / 4, "sample": 0},
            {"model": model, "task": "d", "item": "1", "score": 0.1 * number, "sums": [1.0, 2.0]},
            {"model": model, "task": "bits-per-byte", "item": "1", "score": 1.0, "nll_nats": 2.0 + number},
            {"model": model, "task": "generation", "item": "1", "score": None},
        ]
    rows.append({"model": "a", "task": "t", "item": "3", "score": float("nan")})
    directory = artifact(tmp_path / "scores", rows)
    table = read_table([directory], Columns(any_range=True))
    assert table.benchmarks == ("bits-per-byte/d", "d", "t/d")
    assert table.column("t/d").tolist() == [(0.5 + number / 4) / 2 for number in range(4)]
    assert table.column("bits-per-byte/d")[1] == pytest.approx(3 / np.log(2) / 2)
    said = [(one.kind, one.model, one.benchmark) for one in table.findings]
    assert said == [("missing", "a", "t/d"), ("mean", "", "d")]
    facts = {"task": "d", "dataset": "d", "corpus": "bleu"}
    values = {model: {"value": 0.3 + number / 10} for number, model in enumerate("abcd")}
    write_json(directory / COMPARISON, {"tasks": [{**facts, "by_model": values}]})
    told = read_table([directory], Columns(any_range=True))
    assert told.column("d").tolist() == [0.3, 0.4, 0.5, 0.6]
    assert [(one.kind, one.benchmark) for one in told.findings] == [("missing", "t/d")]
    with pytest.raises(InputError, match="bits-per-byte"):
        read_table([directory])
    with pytest.raises(InputError, match="holds no"):
        read_table([tmp_path])


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        (ROWS[:1], DataError, "one model"),
        (ROWS[:3], DataError, "3 models"),
        ([*ROWS, ROWS[0]], InputError, 'there twice in column "model": a'),
        ([*ROWS[:3], ("d", "good", 0.1, 0.8)], InputError, 'column "MMLU": d: "good"'),
        ([*ROWS[:3], ("d", "1_0", 0.1, 0.8)], InputError, 'd: "1_0"'),
        ([*ROWS[:3], ("d", "inf", 0.1, 0.8)], InputError, 'd: "inf"'),
        ([*ROWS[:3], ("d", 1.2, 0.1, 0.8)], InputError, r"1 scores outside of \[0, 1\]: d MMLU 1.2"),
        ([*ROWS[:3], ("d", -0.2, 0.1, 0.8)], InputError, "outside"),
        ([*ROWS[:3], ("d", 0.2)], InputError, "row 5 has 2 cells, the heading has 4"),
        ([*ROWS[:3], ("", 0.2, 0.1, 0.8)], InputError, "row 4 has no name"),
        ([("a", "x", "y", "z")] * 1, DataError, "0 models|one model"),
        ([], InputError, "has no rows"),
    ],
)
def test_bad_table_is_refused_with_what_was_seen_and_a_hint(tmp_path, rows, kind, said) -> None:
    with pytest.raises(kind, match=said) as caught:
        read_table([csv_file(tmp_path / "t.csv", rows=rows)])
    assert caught.value.hint


def test_scores_in_per_cent_are_refused_with_the_option_that_helps(tmp_path) -> None:
    path = csv_file(tmp_path / "t.csv", rows=[(m, *(100 * v for v in vs)) for m, *vs in ROWS])
    with pytest.raises(InputError) as caught:
        read_table([path])
    assert "--percent" in caught.value.hint
    assert read_table([path], Columns(percent=True)).scores_MB == pytest.approx(
        read_table([csv_file(tmp_path / "u.csv")]).scores_MB
    )
    wild = read_table([path], Columns(any_range=True))
    assert [one.kind for one in check_scores(wild, {}) if one.kind == "range"] != []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.csv", b"\xff\xfe\x00a", "not UTF-8"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b'model,"a\n', "can't be read|empty|no rows"),
        ("t.json", b"{", "not valid JSON"),
        ("t.json", b"3", "no list"),
        ("t.json", b"[1]", "entry 1 is no object"),
        ("t.jsonl", b"{}\n{", "line 2"),
        ("t.parquet", b"PAR1", "can't be read as Parquet"),
        ("t.xlsx", b"", "is no table"),
        ("t.csv", b"model,a,a\nx,1,2\n", "same name: a"),
        ("t.csv", b"model,,a\nx,1,2\n", "column 2 has no name"),
        ("t.json", b"[" * 100_000, "not valid JSON"),
    ],
)
def test_damaged_file_is_one_error(tmp_path, name, data, said) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        read_raw(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        read_raw(tmp_path / "none.csv")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_table_or_one_of_our_errors(tmp_path_factory, text) -> None:
    path = tmp_path_factory.mktemp("any") / "t.csv"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        table = read_table([path])
    except TsugikiError as error:
        hint, models = error.hint, 4
    else:
        hint, models = "none", len(table.models)
    assert hint
    assert models >= 4


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0.5", 0.5),
        (" .5 ", 0.5),
        ("5e-1", 0.5),
        ("-", None),
        ("N/A", None),
        ("", None),
        ("nan", None),
        (float("nan"), None),
        ("0,5", "0,5"),
        ("50%", "50%"),
        ("0x1", "0x1"),
        ("1e999", "inf"),
        (10**400, str(10**400)),
        (True, 1.0),
        (3, 3.0),
    ],
)
def test_cell_is_a_number_nothing_or_text(cell, value) -> None:
    assert cell_of(cell) == value


def test_columns_of_sizes_averages_and_text_are_no_benchmarks(tmp_path) -> None:
    head = ("Model", "size_b", "Params (B)", "licence", "MMLU", "NIILC", "Avg")
    rows = [(m, 7, 7, "MIT", x, y, round((x + y) / 2, 4)) for m, x, y, _ in ROWS]
    table = read_table([csv_file(tmp_path / "t.csv", head, rows)])
    assert table.benchmarks == ("MMLU", "NIILC")
    assert list(table.averages) == ["Avg"]
    assert {one.benchmark for one in table.findings} == {"size_b", "Params (B)"}
    dropped = read_table(
        [csv_file(tmp_path / "t.csv", (*head[:4], "a", "b", "c"), rows)], Columns(drop=("c",))
    )
    assert dropped.benchmarks == ("a", "b")
    only = read_table([tmp_path / "t.csv"], Columns(only=("a", "c")))
    assert only.benchmarks == ("a", "c")
    with pytest.raises(InputError, match='no table has a column "d"'):
        read_table([tmp_path / "t.csv"], Columns(only=("a", "b", "d")))
    with pytest.raises(InputError, match='no column "who"'):
        read_table([tmp_path / "t.csv"], Columns(model="who"))


def test_stale_average_is_found_whatever_columns_it_is_of() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((9, 6)).round(4)
    stated = scores[:, 2:5].mean(axis=1).round(4)
    stated[4] += 0.01
    table = ScoreTable(tuple("abcdefghi"), tuple("uvwxyz"), scores, {"avg": stated, "mean": rng.random(9)})
    found = check_averages(table)
    assert [(one.model, one.benchmark) for one in found] == [("e", "avg"), ("", "mean")]
    assert "its 3 benchmarks" in found[0].message
    assert "not checked" in found[1].message


def test_average_is_checked_where_many_scores_are_missing() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((60, 20)).round(3)
    stated = scores.mean(axis=1).round(3)
    stated[3] += 0.02
    scores[rng.random(scores.shape) < 0.05] = np.nan
    scores[3] = rng.random(20)
    names = tuple(f"b{place}" for place in range(20))
    found = check_averages(ScoreTable(tuple(f"m{row}" for row in range(60)), names, scores, {"avg": stated}))
    assert [one.model for one in found] == ["m3"]


def test_checks_say_zero_chance_ceiling_gaps_and_constants(tmp_path) -> None:
    rows = [
        ("a", 0.0, 0.26, 0.5, 0.2),
        ("b", 0.3, 0.2, 0.51, 0.2),
        ("c", 1.0, 0.9, 0.1, 0.2),
        ("d", "", 0.8, 0.2, 0.2),
    ]
    path = csv_file(tmp_path / "t.csv", ("model", "x", "MMLU", "y", "z"), rows)
    facts = tmp_path / "facts.csv"
    facts.write_text("benchmark,language,chance,highest,note\ny,ja,,0.5,capped\n")
    table = read_table([path])
    found = {
        (one.kind, one.model, one.benchmark)
        for one in (*table.findings, *check_scores(table, known_benchmarks(table.benchmarks, facts)))
    }
    assert found == {
        ("constant", "", "z"),
        ("zero", "a", "x"),
        ("range", "c", "x"),
        ("missing", "d", "x"),
        ("chance", "a", "MMLU"),
        ("chance", "b", "MMLU"),
        ("range", "b", "y"),
        ("note", "", "y"),
    }
    facts.write_text("benchmark,chance\ny,often\n")
    with pytest.raises(InputError, match='"often" of y is no number'):
        known_benchmarks(table.benchmarks, facts)


def test_study_of_a_minimal_table_works(tmp_path) -> None:
    found = study_factors(
        read_table([csv_file(tmp_path / "t.csv")]), Asked(draws=50, noise_draws=50, rotation="varimax")
    )
    assert found.shown == 3
    assert found.rotated is not None


def budget_file(tmp_path, text):
    path = tmp_path / "budgets.csv"
    path.write_text(text)
    return path


HEADING = "name,N_billion,D_total_B,D_ja_B,D_en_B,C_ja_6ND,provenance,family\n"


def test_budgets_are_matched_and_checked(tmp_path) -> None:
    table = read_table([csv_file(tmp_path / "t.csv")])
    path = budget_file(
        tmp_path, HEADING + "A,7,100,10,90,4.2e20,A,x\nb,7,100,20,90,9e20,tokens X,x\nc,7,100,0,50,,A,y\n"
    )
    found = read_budgets(path, table)
    assert found.languages == ("ja", "en")
    assert found.compute("ja")[0] == pytest.approx(4.2e20)
    assert np.isnan(found.compute("ja")[2])
    assert found.assumed == (False, True, False, False)
    said = [(one.model, one.message) for one in found.findings]
    assert ("d", "no row in budgets.csv") in said
    assert any(model == "b" and "6ND is 8.4e+20" in text for model, text in said)
    assert any(model == "b" and "more tokens than" in text for model, text in said)
    assert any(model == "c" and "0 or less" in text for model, text in said)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("name,size\na,7\n", InputError, "no column of tokens"),
        ("name,D_ja_B\na,7\n", InputError, "no column of parameters"),
        (HEADING + "z,7,1,1,1,,,\n", DataError, "no model of the table has a budget"),
        (HEADING + "a,7,1,1,1,,,\na,7,1,1,1,,,\n", InputError, "there twice"),
        (HEADING + "a,many,1,1,1,,,\n", InputError, 'no numbers in column "N_billion"'),
    ],
)
def test_bad_budgets_are_refused(tmp_path, text, kind, said) -> None:
    table = read_table([csv_file(tmp_path / "t.csv")])
    with pytest.raises(kind, match=said):
        read_budgets(budget_file(tmp_path, text), table)


def test_shares_are_drawn_within_their_bounds_and_together(table, budgets) -> None:
    outcomes = {"NIILC": table.column("NIILC")}
    drawn = assumed_shares(budgets, 3.0)
    assert {table.models[one.place] for one in drawn} >= {"Llama 3 8B", "Youri 7B"}
    assert all(one.low <= one.share <= one.high <= 1 for one in drawn)
    one = sensitivity(table.models, outcomes, budgets, drawn, draws=200)
    again = sensitivity(table.models, outcomes, budgets, drawn, draws=200)
    assert one == again
    assert one.spreads[0].low < one.spreads[0].median < one.spreads[0].high


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("Llama 3 8B,1,ja,0.5,0.6,0.4", "share 0.5 from 0.6 to 0.4"),
        ("Llama 3 8B,1,ja,x,0.1,0.2", "row 2 lacks a number"),
        ("Llama 3 8B,1,ja,2,0.1,0.2", "share 2"),
    ],
)
def test_bad_shares_are_refused(table, tmp_path, row, said) -> None:
    path = tmp_path / "shares.csv"
    path.write_text("name,tokens_B,language,share,low,high\n" + row + "\n")
    with pytest.raises(InputError, match=said):
        read_shares(path, table)


def test_runs_are_read_and_gaps_said(tmp_path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("N_billion,D_B,ratio,bpb_ja,bpb_en\n1,10,0.5,2,3\n1,20,0.5,1.9,\n,20,0.5,1.9,2\n")
    table = read_runs(path)
    assert table.parameters.tolist() == [1e9, 1e9]
    assert len(table.runs("bpb_en")) == 1
    assert table.runs("bpb_en", other=True).share.tolist() == [0.5]
    assert table.groups_of("bpb_ja") == ("1e+09 0.5",) * 2
    assert [one.kind for one in table.findings] == ["missing", "missing"]
    with pytest.raises(InputError, match='no column "bpb_de"'):
        table.runs("bpb_de")
    path.write_text("N,D,ratio,loss\n1,1,50,2\n")
    with pytest.raises(InputError, match="a ratio of 50"):
        read_runs(path)
    path.write_text("N,D,loss\n1,1,2\n")
    with pytest.raises(InputError, match="no column of share"):
        read_runs(path)
