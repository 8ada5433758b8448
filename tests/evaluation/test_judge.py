"""A judge on loopback that is slow, busy, confused or biased; scores worked by hand; replays."""

from __future__ import annotations

import json

import pytest

from tsugiki.cli import app
from tsugiki.errors import DataError, InputError, StageError
from tsugiki.evaluation.judge.client import Judge, Reply, ask
from tsugiki.evaluation.judge.judging import judge_all, replay
from tsugiki.evaluation.judge.questions import read_prompts, read_questions
from tsugiki.evaluation.judge.scoring import summarise


def says(text: str):
    return 200, {}, {"choices": [{"message": {"content": text}}]}


def quick(server, **changes) -> Judge:
    return Judge(server.address, "a-judge", **{"first_wait_seconds": 0.01, "timeout_seconds": 5.0} | changes)


def questions_of(judged):
    return read_questions(
        *(judged / f"{name}.jsonl" for name in ("questions", "reference", "answers", "contexts"))
    )


def model_is_first(text: str) -> bool:
    return text.index("mine") < text.index("gold")


def one_review(server, **changes):
    judge = quick(server, **changes)
    return ask(judge, [{"role": "user", "content": "x"}], judge.client())


def test_busy_judge_is_asked_again(serve):
    server = serve(lambda _, turn: says("8 7") if turn > 2 else (429, {}, b"slow down"))
    assert one_review(server).text == "8 7"
    assert len(server.requests) == 3


def test_judge_that_does_not_answer_is_given_up_after_the_tries(serve):
    server = serve(lambda *_: (503, {}, b"down"))
    assert one_review(server, tries=2) == Reply(None, "the server says 503: down, 2 times")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "not JSON"),
        ({"choices": []}, "not in OpenAI's form"),
        ([1], "not in OpenAI's form"),
        (b"[" * 100_000, "not in OpenAI's form"),
        ({"choices": [{"message": {"content": None}}]}, "without text"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_answer_that_is_no_completion_is_a_failure_with_its_text(serve, body, said):
    assert said in one_review(serve(lambda *_: (200, {}, body)), tries=1).error


def test_wrong_key_stops_at_once(serve):
    server = serve(lambda *_: (401, {}, b"no such key"))
    with pytest.raises(InputError, match="says 401: no such key"):
        one_review(server)
    assert len(server.requests) == 1


def test_request_has_the_protocols_fields_and_the_key(serve):
    server = serve(lambda *_: says("8 7"))
    one_review(server, key="sesame")
    assert (server.keys, server.paths) == (["Bearer sesame"], ["/v1/chat/completions"])
    assert server.requests[0]["temperature"] == 0
    assert server.requests[0]["model"] == "a-judge"
    assert len(server.requests[0]["messages"]) == 1


def test_judge_all_keeps_every_review_and_asks_nothing_twice(serve, judged):
    server = serve(lambda text, _: says("6 8" if model_is_first(text) else "8 6"))
    store = judged / "reviews.jsonl"
    first = judge_all(questions_of(judged), read_prompts(), quick(server), store, swap=True)
    assert len(server.requests) == 12
    assert all(len(one["messages"]) == 2 for one in server.requests)  # never those of earlier questions
    assert {one.scores for one in first} == {(8.0, 6.0)}
    with store.open("a") as file:
        file.write('{"question": "half a li')  # killed while it wrote
    again = judge_all(questions_of(judged), read_prompts(), quick(server), store, swap=True)
    assert len(server.requests) == 12
    assert again == first == replay(questions_of(judged), read_prompts(), store, "a-judge", swap=True)
    assert summarise(first).inconsistent == 0.0


def test_judge_with_a_taste_for_the_first_answer_is_found_out(serve, judged):
    server = serve(lambda *_: says("9 5"))
    found = judge_all(questions_of(judged), read_prompts(), quick(server), judged / "r.jsonl", swap=True)
    summary = summarise(found)
    assert summary.inconsistent == 1.0
    assert summary.total.value == pytest.approx(100)  # both orders together: no side is better
    one_order = summarise([one for one in found if not one.swapped])
    assert one_order.total.value == pytest.approx(100 * 5 / 9)
    assert one_order.inconsistent is None


def test_failed_requests_are_asked_again_and_nonsense_is_not(serve, judged):
    def behave(text, turn):
        if "mine q0" in text:
            return says("I would rather not.")
        if "mine q1" in text and turn <= 2:
            return 503, {}, b"down"
        return says("8 4")

    server = serve(behave)
    store = judged / "reviews.jsonl"
    found = judge_all(questions_of(judged), read_prompts(), quick(server, tries=2), store)
    assert [one.outcome for one in found] == ["unparsed", "failed", *["scored"] * 4]
    with pytest.raises(
        StageError, match=r"2 of 6 judgments have no score \(1 could not be read, 1 not asked\)"
    ):
        summarise(found)
    found = judge_all(questions_of(judged), read_prompts(), quick(server, tries=2), store)
    assert [one.outcome for one in found] == ["unparsed", *["scored"] * 5]
    assert max(count for text, count in server.times.items() if "mine q0" in text) == 1
    summary = summarise(found, maximum_errors=0.2, published=True)
    assert summary.counts == {"scored": 5, "unparsed": 1, "failed": 0}
    assert summary.total.value == pytest.approx(50)
    # The published rule: (-1 + 3 * 4) / (-1 + 3 * 8).
    assert summary.published == pytest.approx(
        {"conv": 100 * 11 / 23, "detail": 50, "total": (1100 / 23 + 50) / 2}
    )


def test_replay_refuses_judgments_of_other_answers(serve, judged, write):
    server = serve(lambda *_: says("8 4"))
    judge_all(questions_of(judged), read_prompts(), quick(server), judged / "r.jsonl")
    with pytest.raises(DataError, match="no judgment of 6 requests"):
        replay(questions_of(judged), read_prompts(), judged / "r.jsonl", "another-judge")
    write(
        judged / "answers.jsonl", [{"question_id": f"q{i}", "text": f"mine, changed {i}"} for i in range(6)]
    )
    with pytest.raises(DataError, match="the first of question q0"):
        replay(questions_of(judged), read_prompts(), judged / "r.jsonl", "a-judge")


def test_replay_reads_the_published_scripts_file_and_matches_its_numbers(judged, write):
    scores = [(8, 7), (9, 3), (-1, -1), (6, 6), (10, 5), (7, 7)]
    lines = []
    for i, (a, b) in enumerate(scores):
        review = f"{a} {b}\nwhy" if a > 0 else "Sorry"
        lines.append({"question_id": f"q{i}", "category": "x", "content": review, "tuple": [a, b]})
    write(judged / "published.jsonl", lines)
    found = replay(questions_of(judged), read_prompts(), judged / "published.jsonl", "gpt")
    summary = summarise(found, maximum_errors=0.5, published=True)
    by_script = {"conv": 100 * (7 + 3 - 1 + 6) / (8 + 9 - 1 + 6), "detail": 100 * 12 / 17}
    assert {name: summary.published[name] for name in by_script} == pytest.approx(by_script)
    assert summary.published["total"] == pytest.approx(sum(by_script.values()) / 2)
    assert summary.categories["conv"].value == pytest.approx(100 * 16 / 23)
    assert summary.categories["conv"].questions == 3


def call(capsys, *words):
    app([str(word) for word in words], result_action="return_value")
    return capsys.readouterr().out


def test_command_judges_then_replays_and_compares(serve, judged, capsys, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    server = serve(lambda text, _: says("6 8" if model_is_first(text) else "8 6"))
    paths = (judged / "questions.jsonl", judged / "answers.jsonl", "--reference", judged / "reference.jsonl")
    rest = ("--contexts", judged / "contexts.jsonl", "--judge", "a-judge", "--swap")
    words = ("judge", *paths, "--judgments", judged / "r.jsonl", *rest)
    shown = call(capsys, *words, "--address", server.address, "--key-variable", "JUDGE_KEY", "--published")
    assert "75.0" in shown
    assert "12 scored, 0 could not be read, 0 not asked" in shown
    assert "on 0% of the questions" in shown
    assert set(server.keys) == {"Bearer sesame"}
    found = json.loads(call(capsys, *words, "--json"))
    assert found["summaries"][0]["total"]["value"] == pytest.approx(75)
    assert len(server.requests) == 12
    same = ("--against", judged / "answers.jsonl", "--against-judgments", judged / "r.jsonl")
    assert "difference (first minus second): 0.0 (0.0 to 0.0) on 6 questions" in call(capsys, *words, *same)
    with pytest.raises(InputError, match="belong together"):
        call(capsys, *words, "--against", judged / "answers.jsonl")
    with pytest.raises(InputError, match="out of range"):
        call(capsys, *words, "--max-errors", "2")
