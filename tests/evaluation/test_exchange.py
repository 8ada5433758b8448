"""To and from lm-evaluation-harness: logs in the form that version 0.4.13 writes, tasks that it reads."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tsugiki.artifacts.scores import read_scores
from tsugiki.commands.evaluate_exchange import export, import_
from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.asking import ask
from tsugiki.evaluation.exchange import read_lm_eval

CHOICE = {
    "doc_id": 3,
    "doc": {"q": "?"},
    "target": "1",
    "arguments": {
        "gen_args_0": {"arg_0": "Question", "arg_1": " one"},
        "gen_args_1": {"arg_0": "Question", "arg_1": " 二"},
    },
    "resps": [[["-2.5", "False"]], [["-1.25", "True"]]],
    "filtered_resps": [["-2.5", "False"], ["-1.25", "True"]],
    "filter": "none",
    "metrics": ["acc", "acc_norm", "bleu"],
    "doc_hash": "d" * 64,
    "prompt_hash": "e" * 64,
    "acc": 1.0,
    "acc_norm": 0.0,
    "bleu": ["a", "b"],
}
TEXT = {
    "doc_id": 0,
    "target": "#### 4",
    "arguments": [["Question: 2+2", {"until": ["\n"]}]],
    "filtered_resps": ["[invalid]"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "exact_match": 0.0,
}


def log(folder, lines, name="samples_mmlu_x_2026-01-02T03-04-05.123456.jsonl", model="org__model"):
    (folder / model).mkdir(exist_ok=True)
    path = folder / model / name
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_read_lm_eval_choices_become_a_row(tmp_path):
    log(tmp_path, [CHOICE])
    [row] = read_lm_eval(tmp_path)
    assert {key: value for key, value in row.items() if value is not None} == {
        "model": "org/model", "task": "mmlu_x", "dataset": "mmlu_x", "item": "3",
        "prompt_hash": "e" * 16, "prompt": "Question", "output": "二", "gold": "二", "score": 1.0,
        "nll_nats": 1.25, "bytes": 3, "other_scores": {"acc_norm": 0.0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("documents", "clusters"),
    [
        ([{"context": "p" * 90}, {"context": "p" * 90}, {"context": "q"}], ["a", "a", "b"]),
        ([{"context": "p", "title": "T"}, {"context": "q", "title": "T"}, {"context": "r", "title": "U"}],
         ["T", "T", "U"]),
        ([{"subject": "law"}, {"subject": "art"}, {"subject": "law"}], ["law", "art", "law"]),
        ([{"cluster": 7, "subject": "law"}, {"cluster": 7, "subject": "art"}, {"cluster": 8, "subject": "x"}],
         ["7", "7", "8"]),
        ([{"subject": "law"}, {"subject": "law"}, {"subject": "law"}], None),  # a log of one subject
        ([{"subject": "law"}, {"subject": "art"}, {}], None),
        ([{"subject": ["law"]}, {"subject": True}, {"subject": ""}], None),
        ([{"question": "?"}, "not an object", None], None),
    ],
)  # fmt: skip
def test_read_lm_eval_clusters_come_from_the_documents_own_fields(tmp_path, documents, clusters):
    log(tmp_path, [CHOICE | {"doc_id": number, "doc": one} for number, one in enumerate(documents)])
    found = [row["cluster"] for row in read_lm_eval(tmp_path)]
    if clusters is None:
        assert found == [None] * 3
    else:
        assert [found.index(one) for one in found] == [clusters.index(one) for one in clusters]
        assert all(len(one) <= 80 for one in found)


def test_read_lm_eval_filters_of_one_item_are_one_row(tmp_path):
    flexible = TEXT | {"filter": "flexible-extract", "exact_match": 1.0, "filtered_resps": ["4"]}
    log(tmp_path, [TEXT, flexible])
    [row] = read_lm_eval(tmp_path)
    assert (row["score"], row["other_scores"]) == (0.0, {"exact_match,flexible-extract": 1.0})
    assert (row["output"], row["gold"], row["empty"]) == ("[invalid]", "#### 4", False)


def test_read_lm_eval_newest_log_of_a_task_counts(tmp_path):
    log(tmp_path, [TEXT], "samples_t_2026-01-02T03-04-05.1.jsonl")
    log(tmp_path, [TEXT | {"exact_match": 1.0}], "samples_t_2026-01-03T03-04-05.1.jsonl")
    log(tmp_path, [TEXT], "samples_t_2026-01-01T03-04-05.1.jsonl", model="other")
    assert [(row["model"], row["score"]) for row in read_lm_eval(tmp_path)] == [
        ("org/model", 1.0),
        ("other", 0.0),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": None}, {"arguments": "x"}, {"arguments": [3]}, {"filtered_resps": []}, {"target": None},
        {"filtered_resps": [["a", "b"], ["c", "d"]]}, {"target": 9}, {"acc": float("nan")}, {"metrics": None},
    ],
)  # fmt: skip
def test_read_lm_eval_odd_values_leave_fields_empty(tmp_path, change):
    log(tmp_path, [CHOICE | change])
    [row] = read_lm_eval(tmp_path)
    assert row["item"] == "3"
    assert row["nll_nats"] in {None, 1.25}


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"doc_id": 1', "line 1 can't be read"), ("{}", "no doc_id"), ("[1]", "no doc_id")],
)
def test_read_lm_eval_broken_line_raises(tmp_path, content, message):
    path = tmp_path / "samples_t.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_lm_eval(path)


def test_read_lm_eval_nothing_there_raises(tmp_path):
    with pytest.raises(InputError, match="no samples_"):
        read_lm_eval(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        read_lm_eval(tmp_path / "absent")


def test_import_command_writes_scores(tmp_path, capsys):
    log(tmp_path, [CHOICE, TEXT])
    import_(tmp_path, out=tmp_path / "out", json=True)
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    assert read_scores(tmp_path / "out")["score"].to_pylist() == [0.0, 1.0]


def test_export_command_writes_our_prompts_and_reads_their_logs_back(tmp_path, capsys):
    """What the harness would log for an exported item is again a row of our task and item."""
    export(["mmlu", "xwino-en", "gsm8k"], out=tmp_path, data="sample")
    assert len(capsys.readouterr().out.splitlines()) == 3
    asked = ask(
        ["mmlu", "xwino-en", "gsm8k"], data="sample", variant="corrected", maximum_items=None,
        accept_hashes=(), seed=0, log=logging.getLogger("test"),
    )  # fmt: skip
    for one, kind in zip(asked, ("prompt", "contexts", "prompt"), strict=True):
        task = YAML(typ="safe").load((tmp_path / f"tsugiki-{one.benchmark.name}.yaml").read_text())
        data = task["dataset_kwargs"]["data_files"]["test"]
        documents = [json.loads(line) for line in Path(data).read_text(encoding="utf-8").splitlines()]
        assert len(documents) == len(one.items)
        for item, document in zip(one.items, documents, strict=True):
            expected = item.prompt if kind == "prompt" else list(item.contexts)
            assert document[kind] == expected
            for column in ("doc_to_text", "doc_to_target"):
                assert task[column] in document
        name = f"samples_{task['task']}_2026-01-02T03-04-05.1.jsonl"
        log(tmp_path, [CHOICE | {"doc": documents[0]}], name)
    rows = read_lm_eval(tmp_path / "org__model")
    assert {(row["task"], row["item"]) for row in rows} == {
        (one.benchmark.name, one.items[0].id) for one in asked
    }


def test_export_generation_says_stops_and_caps(tmp_path):
    export(["gsm8k"], out=tmp_path, data="sample", maximum_items=1, json=True)
    task = YAML(typ="safe").load((tmp_path / "tsugiki-gsm8k.yaml").read_text())
    assert task["generation_kwargs"]["do_sample"] is False
    assert "Question:" in task["generation_kwargs"]["until"]
    assert task["generation_kwargs"]["max_gen_toks"] > 50


def test_export_programs_raises(tmp_path):
    with pytest.raises(InputError, match="outside of a sandbox"):
        export(["humaneval"], out=tmp_path, data="sample")
