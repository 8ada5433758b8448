# ruff: noqa: E501 (damaged lines are shown as they are)
"""Every source format: what is read, and that what is damaged is refused with file and line."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Origin
from tsugiki.evaluation.benchmarks.sources import LOADERS, load_records
from tsugiki.evaluation.benchmarks.sources.files import elements, table
from tsugiki.evaluation.benchmarks.store import SAMPLE, SourceFile


def load(kind, *paths, subject="", **options):
    origin = Origin(format=kind, files=("x",), options=options)
    return load_records([SourceFile(path, path.name, subject) for path in paths], origin)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_niilc_joins_answers_and_leaves_out_what_nobody_knows(tmp_path):
    records = load("niilc", SAMPLE / "mynlp/niilc-qa/data/NIILC-ECQA2015_test.xml")
    assert [record["answer"] for record in records] == ["十二か月", "赤,黄,青", "八十一", "人の手"]
    assert records[3]["question"] == "お茶と R&D の共通点は？"
    assert records[1]["each"] == ["赤", "黄", "青"]


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/hostname">',
        '<!ENTITY % p "x">',
    ],
)
def test_xml_that_declares_entities_is_refused(tmp_path, declaration):
    text = f"<!DOCTYPE q [{declaration}]><questions><question><text>&b;</text></question></questions>"
    with pytest.raises(InputError, match="declares entities"):
        elements(write(tmp_path / "a.xml", text), "question")


def test_xml_that_is_cut_names_its_line(tmp_path):
    with pytest.raises(InputError, match="line 2: not XML"):
        load("niilc", write(tmp_path / "a.xml", "<questions>\n<question>"))


def test_squad_keeps_distinct_answers_in_order_and_knows_unanswerable_ones():
    records = load("squad", SAMPLE / "rajpurkar/SQuAD-explorer/dataset/dev-v2.0.json")
    assert records[0]["answers"] == ["at the tip of the cape", "the tip of the cape"]
    assert (records[2]["answers"], records[2]["target"]) == ([], "unanswerable")
    assert records[0]["paragraph"] == records[2]["paragraph"] != records[3]["paragraph"]


def test_squad_question_without_gold_that_is_not_marked_is_refused(tmp_path):
    data = {
        "data": [
            {
                "title": "t",
                "paragraphs": [{"context": "c", "qas": [{"id": "7", "question": "q", "answers": []}]}],
            }
        ]
    }
    with pytest.raises(InputError, match="question 7: no gold"):
        load("squad", write(tmp_path / "a.json", json.dumps(data)))


def test_exemplars_are_parsed_and_never_run(tmp_path):
    marker = tmp_path / "ran"
    source = f"open({str(marker)!r}, 'w')\nMGSM_EXEMPLARS = {{'ja': {{'1': {{'q': '問題：問', 'a': 'ステップごとの答え：答'}}}}}}\n"
    (record,) = load("mgsm_exemplars", write(tmp_path / "exemplars.py", source), language="ja")
    assert (record["question"], record["answer"]) == ("問", "答")
    assert not marker.exists()
    for value in ("open('x')", "{'ja': __import__('os')}", "[1]", "{"):
        path = write(tmp_path / "bad.py", f"MGSM_EXEMPLARS = {value}\n")
        with pytest.raises(InputError, match=r"bad\.py"):
            load("mgsm_exemplars", path, language="ja")
    with pytest.raises(InputError, match='no exemplars for "fr"'):
        load("mgsm_exemplars", tmp_path / "exemplars.py", language="fr")


def test_openbookqa_is_unwrapped_and_its_hub_form_gives_the_same(tmp_path):
    wrapped = load("openbookqa_wrapped", SAMPLE / "AGI-Edgerunners/LLM-Adapters/dataset/openbookqa/test.json")
    assert wrapped[0]["question"] == "A puddle disappears in the sun because water"
    assert wrapped[0]["choices"] == ["freezes", "evaporates", "burns", "rusts"]
    rows = [
        {
            "id": str(number),
            "question_stem": record["question"],
            "choices": {"text": record["choices"], "label": list("ABCD")},
            "answerKey": "ABCD"[record["label"]],
        }
        for number, record in enumerate(wrapped)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert load("openbookqa", tmp_path / "test.parquet") == wrapped


def test_xwino_finds_the_pronoun_by_its_tokens_and_its_hub_form_gives_the_same(tmp_path):
    records = load("xwino", SAMPLE / "yandex-research/crosslingual_winograd/dataset.tsv", language="en")
    assert len(records) == 5  # the Japanese line is not of this language
    assert records[2]["sentence"] == 'The sign said "open", so Ann told Bea that _ could enter.'
    rows = [
        {
            "sentence": record["sentence"],
            "option1": record["choices"][0],
            "option2": record["choices"][1],
            "answer": str(record["label"] + 1),
        }
        for record in records
    ]
    path = write(tmp_path / "en.jsonl", "\n".join(map(json.dumps, rows)))
    assert [r | {"id": ""} for r in load("xwinograd_rows", path)] == [r | {"id": ""} for r in records]


def test_hellaswag_marks_of_wikihow_are_taken_off():
    record = load("hellaswag", SAMPLE / "rowanz/hellaswag/data/hellaswag_val.jsonl")[1]
    assert record["query"] == "Making tea. How to brew: Boil some water. The kettle"


def test_mmlu_of_files_and_of_rows_are_the_same(tmp_path):
    records = load("mmlu", SAMPLE / "hendrycks/test/data/test/astronomy_test.csv", subject="astronomy")
    rows = [
        {"question": r["question"], "subject": "astronomy", "choices": r["choices"], "answer": r["label"]}
        for r in records
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert load("mmlu_rows", tmp_path / "a.parquet", subject="astronomy") == records


def test_parallel_sentences_of_both_containers_are_the_same(tmp_path):
    folder = SAMPLE / "wmt20-ja-en"
    sgm = load("parallel", folder / "newstest2020-jaen-src.ja.sgm", folder / "newstest2020-jaen-ref.en.sgm")
    text = load("parallel", SAMPLE / "wmt20-en-ja/wmt20.en-ja.ja", SAMPLE / "wmt20-en-ja/wmt20.en-ja.en")
    assert [(r["source"], r["answers"]) for r in sgm] == [(r["source"], r["answers"]) for r in text]
    assert [r["document"] for r in sgm] == ["market"] * 3 + ["bridge"] * 2
    short = write(tmp_path / "short.en", "One.\n")
    with pytest.raises(InputError, match="5 sentences"):
        load("parallel", SAMPLE / "wmt20-en-ja/wmt20.en-ja.ja", short)


def test_bbh_takes_its_prompt_without_the_canary(tmp_path):
    (record,) = load(
        "bbh", SAMPLE / "suzgunmirac/BIG-Bench-Hard/bbh/word_sorting.json", subject="word_sorting"
    )
    assert record["exemplars"].startswith("Sort a list of words.\n\nQ: ")
    assert record["exemplars"].endswith("So the answer is a b.")
    path = write(tmp_path / "word_sorting.json", '{"examples": [{"input": "a", "target": "b"}]}')
    with pytest.raises(InputError, match="cot-prompts"):
        load("bbh", path)


def test_jsonl_with_a_byte_order_mark_blank_lines_and_gzip_is_read(tmp_path):
    line = json.dumps({"question": "q", "answer": "#### 1"})
    plain = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + f"{line}\n\n{line}\n".encode())
    packed = write(tmp_path / "b.jsonl.gz", gzip.compress(plain.read_bytes()))
    assert len(load("gsm8k", plain)) == len(load("gsm8k", packed)) == 2
    with pytest.raises(InputError, match=r"b\.jsonl\.gz can't be read"):
        load("gsm8k", write(tmp_path / "b.jsonl.gz", packed.read_bytes()[:-9]))


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    [
        ("gsm8k", "a.jsonl", '{"question": "q", "answer": "4"}', "line 1: the answer has no"),
        ("gsm8k", "a.jsonl", '{"question": "q"}', 'line 1: "answer" should be str, and is nothing'),
        ("gsm8k", "a.jsonl", '\n{"question": ', "line 2: not JSON"),
        ("gsm8k", "a.jsonl", "[1]", "line 1: an object is expected, not list"),
        ("gsm8k", "a.jsonl", b'{"question": "\xff"}', "line 1: not UTF-8"),
        ("gsm8k", "a.jsonl", "", "holds no item"),
        ("gsm8k", "a.parquet", b"PAR1", "can't be read as Parquet"),
        (
            "jcommonsenseqa",
            "a.json",
            '{"q_id": 1, "question": "q", "label": 7, "choice0": "a", "choice1": "b", "choice2": "c", "choice3": "d", "choice4": "e"}',
            "gold label is 7, there are 5",
        ),
        (
            "jcommonsenseqa",
            "a.json",
            '{"q_id": 1, "question": "q", "label": true, "choice0": "a", "choice1": "b", "choice2": "c", "choice3": "d", "choice4": "e"}',
            '"label" should be int',
        ),
        (
            "jemhopqa",
            "a.json",
            '[{"qid": "a", "question": "q", "answer": " "}]',
            "item 1: the item has no gold",
        ),
        (
            "jemhopqa",
            "a.json",
            '[{"qid": "a", "question": "q", "answer": "x"}, {"qid": "a", "question": "q", "answer": "x"}]',
            'two items have the id "a"',
        ),
        ("mmlu", "a.csv", "q,1,2,3,4,E\n", 'line 1: the answer is "E"'),
        ("mmlu", "a.csv", 'q,1,2,3,4,A\n"q,1,2,3,4,A\n', "not CSV"),
        ("mmlu", "a.csv", "q,1,2\n", "line 1: 3 cells, 6 are expected"),
        ("mgsm", "a.tsv", "q\n", "line 1: 1 cells, 2"),
        (
            "hellaswag",
            "a.jsonl",
            '{"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["x"], "label": ""}',
            "no gold label",
        ),
        (
            "human_eval",
            "a.jsonl",
            '{"task_id": "1", "prompt": "p", "test": "t", "entry_point": "f(); g"}',
            "not the name of a function",
        ),
        ("xlsum", "a.jsonl", '{"id": "1", "text": "t", "summary": ""}', "no gold summary"),
        (
            "triviaqa",
            "a.jsonl",
            '{"question_id": "1", "question": "q", "answer": {"aliases": []}}',
            "no gold answer",
        ),
        (
            "refusals",
            "a.jsonl",
            '{"category": "c", "prompt": "p", "expected": "maybe"}',
            "not refuse or comply",
        ),
        (
            "openbookqa_wrapped",
            "a.json",
            '[{"instruction": "x", "answer": "answer1"}]',
            "not an OpenBookQA question",
        ),
        ("xwino", "a.tsv", 'en\ta\t?\tIt is.\t["No"]\t["it", [0, 1]]\t[]\n', "not a line of XWINO"),
        ("parallel", "a.en", "x\n", "1 files, a source and a reference"),
    ],
)
def test_damaged_source_is_refused_with_its_place(tmp_path, kind, name, content, said):
    with pytest.raises(InputError) as caught:
        load(kind, write(tmp_path / name, content))
    assert said in str(caught.value)


def test_format_that_is_unknown_gets_the_nearest(tmp_path):
    with pytest.raises(InputError, match='did you mean "gsm8k"'):
        load("gsm8", tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(set(LOADERS) - {"bbh", "parallel"})), st.binary(max_size=300))
def test_bytes_of_any_kind_give_records_or_an_input_error(tmp_path_factory, kind, content):
    path = write(tmp_path_factory.mktemp("any") / "a.jsonl", content)
    try:
        records = load(kind, path)
    except InputError as error:
        said = str(error)
    else:
        said = "a.jsonl" if records else "neither records nor an error"
    assert "a.jsonl" in said


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text('ab,"\n ', max_size=5), min_size=2, max_size=3), min_size=1, max_size=5))
def test_csv_cells_come_back(tmp_path_factory, cells):
    import csv
    import io

    text = io.StringIO()
    csv.writer(text).writerows(cells)
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", text.getvalue())
    assert [row for _, row in table(path, 2)] == cells
