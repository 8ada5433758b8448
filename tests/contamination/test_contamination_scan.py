"""Planted leaks are found however they are written; near misses are not; what is shown can't act."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.plain import Damage
from tsugiki.artifacts.scores import SCHEMA, write_scores
from tsugiki.cli import app
from tsugiki.contamination.documents import iterate_texts
from tsugiki.contamination.effect import effects
from tsugiki.contamination.page import caveats, page, summary
from tsugiki.contamination.scan import build_indexes, locate, scan
from tsugiki.contamination.wanted import Wanted, wanted_items
from tsugiki.contamination.whole import letters_of
from tsugiki.corpus.contamination import simplify
from tsugiki.errors import InputError
from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

QUESTION = "電子計算機で使われる主要な回路基板のことを何と呼ぶでしょうか？"
ANSWER = "マザーボード"
FILLER = "今日は朝から雨が降っていたので、家で本を読んで過ごした。" * 30
JA = Wanted("quiz", "ja", "1", QUESTION, ANSWER)
EN = Wanted(
    "quiz",
    "en",
    "2",
    "Which of these substances is the best conductor of electricity at room temperature?",
    "silver",
)


def found(text, items=(JA, EN), **details):
    hits = scan(build_indexes(items, **details), [("d", text)]).hits
    return [(hit.item.id, hit.with_answer) for hit in hits]


@pytest.mark.parametrize(
    "written",
    [
        QUESTION,
        "電子計算機で使われる 主要な\n回路基板のことを\r\n何と呼ぶ　でしょうか",  # white space
        "「電子計算機で、使われる主要な“回路基板”のことを何と呼ぶでしょうか！」",  # punctuation
        QUESTION.replace("電子", "電\u200b子").replace("基板", "**基板**"),  # marks in between
        QUESTION.replace("呼ぶでしょうか", "呼ぶのですか"),  # the end is another one
    ],
)
def test_leak_is_found_however_it_is_written(written):
    assert found(FILLER + written + FILLER) == [("1", False)]
    assert found(FILLER + written + "答えはﾏｻﾞｰﾎﾞｰﾄﾞです。" + FILLER) == [("1", True)]


@pytest.mark.parametrize(
    "written",
    [
        "電子計算機で使われる主要な部品について、昨日は友人と長く話をした。",  # the same beginning
        "回路基板のことを何と呼ぶでしょうか？",  # half of it
        QUESTION[::-1],
        "マザーボードは電子計算機の部品である。",  # the answer alone
        "",
    ],
)
def test_near_miss_is_not_found(written):
    assert found(FILLER + written + FILLER) == []


def test_answer_elsewhere_in_a_document_is_no_answer():
    assert found(ANSWER + FILLER + QUESTION + FILLER + ANSWER) == [("1", False)]
    assert found(FILLER + ANSWER + "。" + QUESTION) == [("1", True)]


def test_english_question_is_found_over_line_breaks_and_in_capitals():
    text = EN.question.upper().replace(" ", "\n")
    assert found(f"{FILLER}{text} SILVER.") == [("2", True)]
    assert found(FILLER + EN.question.replace("Which", "What")) == [("2", False)]
    assert found(FILLER + EN.question[:40]) == []


def test_share_zero_takes_any_ngram():
    assert found(FILLER + QUESTION[:22] + FILLER) == []
    assert found(FILLER + QUESTION[:22] + FILLER, share=0.0) == [("1", False)]


def test_answer_of_one_letter_proves_nothing():
    item = Wanted("quiz", "ja", "1", QUESTION, "3")
    assert found(QUESTION + "3", [item]) == [("1", False)]


SHORT = Wanted("quiz", "ja", "3", "山は？", "富士山")
SHORT_EN = Wanted("quiz", "en", "4", "Who are you?", "nobody")


@pytest.mark.parametrize(
    ("text", "weak"),
    [
        ("山は？富士山", [("3", True)]),
        ("問:「山 は」", [("3", False)]),
        ("山は", [("3", False)]),
        ("富士山は？", []),  # letters before it
        ("山は高い", []),  # letters behind it
        ("ヤマは?", []),
        ("- WHO are\nyou? -", [("4", False)]),
        ("Who are you, Nobody?", [("4", True)]),
        ("Guess who areyou", [("4", False)]),
        ("Who are yours?", []),
        ("Anywho are you", []),
        ("", []),
    ],
)
def test_short_question_is_found_as_a_whole_between_boundaries(text, weak):
    result = scan(build_indexes([JA, EN, SHORT, SHORT_EN]), [("d", text)])
    assert [(hit.item.id, hit.with_answer) for hit in result.weak] == weak
    assert result.hits == ()
    assert (result.short, result.unsearched) == ({"quiz#3", "quiz#4"}, frozenset())


def test_short_questions_alone_are_searched_and_one_letter_is_not():
    one = Wanted("quiz", "ja", "5", "山？", "")
    result = scan(build_indexes([SHORT, one]), [("d", FILLER + "山は？" + FILLER + "山？")])
    assert [hit.item.id for hit in result.weak] == ["3"]
    assert "山は？" in result.weak[0].excerpt
    assert result.unsearched == {"quiz#5"}
    report = summary(result, Damage(), [])
    assert report["tasks"][0] | {"short": 1, "short_found": 1, "not_searched": 1} == report["tasks"][0]
    said = caveats(report["tasks"])
    assert said[0].startswith("1 of 2 items have too few letters")
    assert "weak evidence" in said[0]
    assert "1 of 2 items have fewer than two letters" in said[1]
    assert all(line in page(report) for line in said)
    with pytest.raises(InputError, match="none of 1 items"):
        build_indexes([one])


def test_weak_evidence_counts_as_untouched_and_is_printed_apart(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("朝に昇るものは？ 太陽", encoding="utf-8")
    words = ["contamination", str(tmp_path), "--tasks", "jcommonsenseqa", "--data", "sample"]
    app([*words, "--json"], result_action="return_value")
    report = json.loads(capsys.readouterr().out)
    assert (report["tasks"][0]["question"], report["tasks"][0]["short_found"]) == (0, 1)
    assert [hit["with_answer"] for hit in report["weak_hits"]] == [True]
    app(words, result_action="return_value")
    printed = capsys.readouterr().out
    assert "(short, found whole: weak, with its answer)" in printed
    assert "so they count as untouched" in printed


@given(st.text("ab 。ﾊﾟか\u3099İΣé\u0301", max_size=40))
def test_letters_are_those_of_simplify_with_a_boundary_at_both_ends(text):
    letters = letters_of(text)
    assert letters.symbols.tolist() == simplify(text).tolist()
    assert letters.boundary[0]
    assert letters.boundary[-1]


def test_scan_finds_every_planted_item_and_nothing_in_clean_text():
    generator = random.Random(0)
    letters = [chr(code) for code in range(0x4E00, 0x5E00)]

    def text(size):
        return "".join(generator.choices(letters, k=size))

    items = [Wanted("quiz", "ja", str(number), text(40), text(6)) for number in range(200)]
    clean = [(f"c{number}", text(400)) for number in range(300)]
    planted = [
        (f"p{number}", text(200) + items[number].question + text(5) + items[number].answer + text(50))
        for number in range(0, 200, 2)
    ]
    indexes = build_indexes(items)
    assert scan(indexes, clean).hits == ()
    for threads in (1, 3):
        result = scan(indexes, [*clean, *planted], threads=threads)
        assert [hit.document for hit in result.hits] == [name for name, _ in planted]
        assert [hit.item.id for hit in result.hits] == [str(number) for number in range(0, 200, 2)]
        assert all(hit.with_answer and hit.share == 1 for hit in result.hits)
        assert result.documents == 400
        assert result.letters == sum(len(body) for _, body in [*clean, *planted])


def test_locate_says_where_and_how_much():
    symbols = np.concatenate([simplify("あ" * 30), simplify(QUESTION), simplify("い" * 30)])
    question = simplify(QUESTION)
    assert locate(symbols, question, 20) == (30, 30 + question.size, 1.0)
    start, end, share = locate(symbols[: 30 + 22], question, 20)
    assert (start, end, share) == (30, 52, 22 / question.size)
    assert locate(simplify("う" * 50), question, 20) == (0, 0, 0.0)


def test_excerpt_shows_the_place_as_it_stands_in_the_document():
    hit = scan(build_indexes([JA]), [("d", FILLER + "★ " + QUESTION + " ★" + FILLER)]).hits[0]
    assert "★ " + QUESTION + " ★" in hit.excerpt
    assert len(hit.excerpt) < 400


# Documents


def test_documents_of_every_kind_are_read_and_damage_is_counted(tmp_path):
    lines = b'{"id": "a", "text": "one"}\n{"text": 3}\nnot json\n\n{"text": "two"}\n["text"]\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(lines))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines * 4000)[:-20])
    (tmp_path / "e.txt").write_text("three")
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"text": ["four", None]}), tmp_path / "g.parquet")
    damage = Damage()
    texts = list(iterate_texts([tmp_path], damage))
    assert texts[:6] == [
        ("a", "one"),
        ("a.jsonl:5", "two"),
        ("a", "one"),
        ("b.jsonl.gz:5", "two"),
        *texts[4:6],
    ]
    assert ("e.txt", "three") in texts
    assert ("g.parquet:1", "four") in texts
    assert damage.lines >= 3 * 3 + 2
    assert any("d.jsonl.gz" in place or "a.jsonl:3" in place for place in damage.places)


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_documents_of_a_packed_file_cut_short_are_counted_as_damage(suffix, pack, tmp_path):
    path = tmp_path / f"cut.jsonl.{suffix}"
    path.write_bytes(pack(b'{"text": "one"}\n' * 4000)[:-2])
    damage = Damage()
    list(iterate_texts([path], damage))
    assert damage.lines == 1


def test_documents_of_an_artifact_are_its_training_split(tmp_path):
    from tsugiki.artifacts.documents import documents_schema, write_documents

    rows = [
        dict.fromkeys(documents_schema({}).names)
        | {"id": split, "text": "x", "split": split, "rejected_by": [], "language": "ja"}
        for split in ("train", "heldout")
    ]
    table = pa.Table.from_pylist(rows, schema=documents_schema({}))
    write_documents(tmp_path / "documents" / "part-00000.parquet", table)
    assert list(iterate_texts([tmp_path], Damage())) == [("train", "x")]


def test_documents_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no documents"):
        list(iterate_texts([tmp_path / "no"], Damage()))


# Effect on scores


def scores(model, values, task="gsm8k", **more):
    return [
        dict.fromkeys(SCHEMA.names)
        | {"model": model, "task": task, "dataset": "s", "item": str(number), "score": float(value), **more}
        for number, value in enumerate(values)
    ]


def table(*rows):
    return pa.Table.from_pylist([row for part in rows for row in part], schema=SCHEMA)


def test_effect_is_the_mean_with_and_without_the_touched_items():
    values = [1, 1, 1, 1, 0, 1, 0, 0, 1, 0]
    touched = frozenset(f"gsm8k#{number}" for number in range(4))
    base, adapted = effects(table(scores("base", values[::-1]), scores("adapted", values)), touched)
    assert (adapted.items, adapted.touched, adapted.value, adapted.clean) == (
        10,
        4,
        0.6,
        pytest.approx(1 / 3),
    )
    assert adapted.delta == pytest.approx(0.6 - 1 / 3)
    assert adapted.low < adapted.delta < adapted.high
    assert adapted.against[0] == pytest.approx(adapted.delta - base.delta)
    assert adapted.against[1] < adapted.against[0] < adapted.against[2]
    assert base.against is None
    assert effects(table(scores("base", values)), touched) == effects(table(scores("base", values)), touched)


def test_effect_interval_covers_no_effect_where_touched_items_are_like_the_others():
    inside = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        values = generator.integers(0, 2, 120)
        touched = frozenset(f"gsm8k#{number}" for number in range(40))
        (effect,) = effects(table(scores("m", values)), touched, draws=300, seed=seed)
        inside += effect.low <= 0 <= effect.high
    assert 50 <= inside <= 60  # 57 expected, standard deviation 1.7


def test_effect_where_nothing_or_everything_is_touched_is_none():
    rows = table(scores("m", [1, 0]), scores("m", [1, 1], task="bbh"))
    touched = frozenset({"gsm8k#0", "gsm8k#1", "bbh#9"})
    all_, none = effects(rows, touched)
    assert (all_.touched, all_.clean, all_.delta) == (2, None, None)
    assert (none.touched, none.value, none.delta) == (0, 1.0, None)
    with pytest.raises(InputError, match="items were found of mmlu"):
        effects(rows, frozenset({"mmlu#1"}))


def test_effect_of_a_corpus_metric_is_computed_from_sums():
    metric = CORPUS_METRICS["bleu"]
    pairs = [
        ("the cat sat on the mat", "the cat sat on the mat"),
        ("a dog ran to the red house", "a dog ran to a house"),
    ]
    sums = [metric.sums(prediction, [gold]) for prediction, gold in pairs]
    rows = [
        row | {"sums": list(counts)}
        for row, counts in zip(scores("m", [1, 0], task="wmt20-ja-en"), sums, strict=True)
    ]
    (effect,) = effects(table(rows), frozenset({"wmt20-ja-en#0"}))
    assert effect.value == pytest.approx(float(metric.value(np.sum(sums, axis=0))))
    assert effect.clean == pytest.approx(float(metric.value(sums[1])))


def test_effect_averages_samples_within_the_item():
    rows = [
        dict.fromkeys(SCHEMA.names)
        | {"model": "m", "task": "humaneval", "dataset": "s", "item": item, "score": score, "sample": sample}
        for item, answers in (("a", [1.0, 0.0]), ("b", [1.0, 1.0, 1.0, 1.0]))
        for sample, score in enumerate(answers)
    ]
    (effect,) = effects(table(rows), frozenset({"humaneval#a"}))
    assert (effect.items, effect.value, effect.clean) == (2, 0.75, 1.0)


# The report


def test_page_lets_nothing_of_a_document_act():
    evil = f"<script>alert(1)</script>\u202e\x1b[2J{QUESTION}</blockquote><img src=x onerror=alert(2)>"
    result = scan(build_indexes([JA]), [("<b>d</b>\u202e", evil)])
    html = page(summary(result, Damage(), []))
    assert "&lt;script&gt;" in html
    assert not any(mark in html for mark in ("<script", "<img", "<b>d", "\u202e", "\x1b"))


def test_sample_of_a_benchmark_is_what_is_looked_for():
    items = wanted_items(["jcommonsenseqa", "xwino-en"], "sample")
    assert (items[0].question, items[0].answer) == ("朝に昇るものは？", "太陽")
    assert items[4].question == "The cat fled from the dog because The cat was afraid."
    assert {item.language for item in items} == {"ja", "en"}


def test_command_reports_hits_and_scores_without_them(tmp_path, capsys):
    question = "A garden has 7 rows of 8 tulips.\n6 tulips are  picked. How many are left?"
    documents = tmp_path / "documents.jsonl"
    documents.write_text(json.dumps({"id": "d1", "text": question}) + "\nbroken\n")
    rows = scores("base", [1, 0, 0]) + scores("adapted", [1, 1, 0])
    (tmp_path / "scores").mkdir()
    write_scores(tmp_path / "scores" / "scores.parquet", rows)
    words = ["contamination", str(documents), "--tasks", "gsm8k", "--data", "sample"]
    words += ["--scores", str(tmp_path / "scores"), "--html", str(tmp_path / "leaks.html")]
    app(words, result_action="return_value")
    printed = capsys.readouterr().out
    assert "1 documents" in printed
    assert "gsm8k#0 in d1 (100%, question only)" in printed
    assert "1 damaged lines" in printed
    assert "1 of 3" in (tmp_path / "leaks.html").read_text(encoding="utf-8")
    app([*words, "--json"], result_action="return_value")
    report = json.loads(capsys.readouterr().out)
    assert report["tasks"][0]["question"] == 1
    by_model = {effect["model"]: effect for effect in report["effects"]}
    assert by_model["adapted"]["value"] == pytest.approx(2 / 3)
    assert by_model["adapted"]["clean"] == pytest.approx(1 / 2)
