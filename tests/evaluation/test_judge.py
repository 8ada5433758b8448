"""A judge on loopback that is slow, busy, confused, biased or dead; scores worked by hand; replays."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import urllib3

from tsugiki.cli import app
from tsugiki.errors import DataError, InputError, StageError
from tsugiki.evaluation.judge.client import Judge, ask
from tsugiki.evaluation.judge.judging import (
    Judgment,
    judge_all,
    parse_scores,
    parse_scores_as_published,
    replay,
)
from tsugiki.evaluation.judge.questions import messages, read_prompts, read_questions
from tsugiki.evaluation.judge.scoring import difference, summarise


class Server:
    """A judge whose `behave(text, how many times this text came)` gives status, headers and body."""

    def __init__(self, behave):
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.times: Counter[str] = Counter()
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                with lock:
                    outer.requests.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                    outer.times[text] += 1
                    turn = outer.times[text]
                status, headers, answer = behave(text, turn)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client gave up
                    pass

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def serve():
    made = []

    def start(behave):
        made.append(Server(behave))
        return made[-1]

    yield start
    for server in made:
        server.close()


def says(text: str):
    return 200, {}, {"choices": [{"message": {"content": text}}]}


def quick(server: Server, **changes) -> Judge:
    return Judge(server.address, "a-judge", **{"first_wait_seconds": 0.01, "timeout_seconds": 5.0} | changes)


@pytest.fixture
def folder(tmp_path):
    """Six questions on three images in two categories; the model's answer to q5 holds a placeholder."""
    names = [f"q{i}" for i in range(6)]
    asked = []
    for i, name in enumerate(names):
        place = {"category": "conv" if i < 4 else "detail", "image": f"{i // 2}.jpg"}
        asked.append({"question_id": name, "text": f"問{i}？"} | place)
    write(tmp_path / "questions.jsonl", asked)
    write(tmp_path / "contexts.jsonl", [{"image": f"{i}.jpg", "caption": f"絵{i}"} for i in range(3)])
    write(tmp_path / "reference.jsonl", [{"question_id": name, "text": f"gold {name}"} for name in names])
    answers = [{"question_id": name, "text": f"mine {name}"} for name in names]
    answers[5]["text"] = "mine q5 {first} {task}"
    write(tmp_path / "answers.jsonl", answers)
    return tmp_path


def write(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def questions_of(folder):
    return read_questions(
        *(folder / f"{name}.jsonl" for name in ("questions", "reference", "answers", "contexts"))
    )


def model_is_first(text: str) -> bool:
    return text.index("mine") < text.index("gold")


# --- parsing, prompts, files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("review", "scores", "published"),
    [
        ("8 7\nbecause", (8, 7), (8, 7)),
        (" 8.5, 7 \nbecause", (8.5, 7), (8.5, 7)),
        ("8,7", (8, 7), (8, 7)),
        ("10 1", (10, 1), (10, 1)),
        ("", None, (-1, -1)),
        ("\n8 7", None, (-1, -1)),
        ("8", None, (-1, -1)),
        ("8 7 6", None, (-1, -1)),
        ("Assistant 1: 8", None, (-1, -1)),
        ("score1 score2", None, (-1, -1)),
        ("8/10 7/10", None, (-1, -1)),
        ("0 7", None, (0, 7)),  # out of the scale: the published rule takes it
        ("95 80", None, (95, 80)),
        ("nan 7", None, None),
        ("８ ７", (8, 7), (8, 7)),
    ],
)
def test_parse_scores_takes_two_numbers_of_the_scale_and_nothing_else(review, scores, published):
    assert parse_scores(review) == scores
    found = parse_scores_as_published(review)
    assert found == published if published else np.isnan(found[0])


def test_prompt_holds_each_part_once_and_answers_are_not_templates(folder):
    question = questions_of(folder)[5]
    sent = messages(read_prompts(), question, swapped=False)
    text = sent[1]["content"]
    assert [one["role"] for one in sent] == ["system", "user"]
    for part in ("絵2", "問5？", "gold q5", "mine q5 {first} {task}"):
        assert text.count(part) == 1
    assert not model_is_first(text)
    assert model_is_first(messages(read_prompts(), question, swapped=True)[1]["content"])
    assert "asks for a description" in text


@pytest.mark.parametrize(
    ("file", "lines", "said"),
    [
        ("answers", [{"question_id": "q0", "text": "x"}], "holds no answer to question q1"),
        ("answers", [{"question_id": "q0"}], "has no text"),
        ("questions", [{"text": "x"}], "neither question_id nor id"),
        ("questions", [{"question_id": "q0", "text": "x", "image": "0.jpg"}], "q0 .* has no category"),
        ("contexts", [{"image": "0.jpg", "caption": "x"}], "has no context"),
        ("questions", [], "holds no question"),
        ("questions", ["text"], "is no object"),
    ],
)
def test_files_with_something_missing_are_refused(folder, file, lines, said):
    write(folder / f"{file}.jsonl", lines)
    with pytest.raises((InputError, DataError), match=said):
        questions_of(folder)


def test_prompt_file_without_a_place_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("system: s\nbody: '{context} {question} {first} {second}'\ntasks: {default: d}\n")
    with pytest.raises(InputError, match="no place for task"):
        read_prompts(path)
    path.write_text("system: s\nbody: b\n")
    with pytest.raises(InputError, match="no file of judge prompts"):
        read_prompts(path)


# --- the server ----------------------------------------------------------------------------------------


def one_question(server, **changes):
    return ask(quick(server, **changes), [{"role": "user", "content": "x"}], urllib3.PoolManager())


def test_busy_judge_is_asked_again_as_it_says(serve):
    server = serve(lambda _, turn: says("8 7") if turn > 2 else (429, {"Retry-After": "0.2"}, b"slow down"))
    begin = time.monotonic()
    assert one_question(server).text == "8 7"
    assert time.monotonic() - begin > 0.4
    assert len(server.requests) == 3


def test_judge_that_times_out_is_given_up_after_the_tries(serve):
    def late(_, __):
        time.sleep(0.6)
        return says("8 7")

    reply = one_question(serve(late), timeout_seconds=0.1, tries=2)
    assert reply.text is None
    assert "Timeout" in reply.error
    assert "after 2 tries" in reply.error


def test_judge_that_is_not_there_is_given_up(serve):
    server = serve(lambda *_: says(""))
    server.http.server_close()
    assert "after 2 tries" in one_question(server, tries=2).error


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "no chat completion"),
        ({"choices": []}, "no chat completion"),
        ([1], "no chat completion"),
        (b"[" * 100_000, "no chat completion"),
        ({"choices": [{"message": {"content": None}}]}, "without text"),
        (b"\xff\xfe\x00", "no chat completion"),
    ],
)
def test_answer_that_is_no_completion_is_a_failure_with_its_text(serve, body, said):
    assert said in one_question(serve(lambda *_: (200, {}, body))).error


def test_wrong_key_stops_at_once(serve):
    server = serve(lambda *_: (401, {}, b"no such key"))
    with pytest.raises(InputError, match="status 401: no such key"):
        one_question(server)
    assert len(server.requests) == 1


def test_request_has_the_protocols_fields_and_the_key(serve):
    server = serve(lambda *_: says("8 7"))
    one_question(server, key="sesame")
    assert server.keys == ["Bearer sesame"]
    assert server.requests[0]["temperature"] == 0
    assert server.requests[0]["model"] == "a-judge"
    assert len(server.requests[0]["messages"]) == 1


# --- judging -------------------------------------------------------------------------------------------


def test_judge_all_keeps_every_review_and_asks_nothing_twice(serve, folder):
    server = serve(lambda text, _: says("6 8" if model_is_first(text) else "8 6"))
    store = folder / "reviews.jsonl"
    first = judge_all(questions_of(folder), read_prompts(), quick(server), store, swap=True)
    assert len(server.requests) == 12
    assert all(len(one["messages"]) == 2 for one in server.requests)  # never those of earlier questions
    assert {one.scores for one in first} == {(8.0, 6.0)}
    with store.open("a") as file:
        file.write('{"question": "half a li')  # killed while it wrote
    again = judge_all(questions_of(folder), read_prompts(), quick(server), store, swap=True)
    assert len(server.requests) == 12
    assert again == first == replay(questions_of(folder), read_prompts(), store, "a-judge", swap=True)
    assert summarise(first).inconsistent == 0.0


def test_judge_with_a_taste_for_the_first_answer_is_found_out(serve, folder):
    server = serve(lambda *_: says("9 5"))
    found = judge_all(questions_of(folder), read_prompts(), quick(server), folder / "r.jsonl", swap=True)
    summary = summarise(found)
    assert summary.inconsistent == 1.0
    assert summary.total.value == pytest.approx(100)  # both orders together: no side is better
    one_order = summarise([one for one in found if not one.swapped])
    assert one_order.total.value == pytest.approx(100 * 5 / 9)
    assert one_order.inconsistent is None


def test_failed_requests_are_asked_again_and_nonsense_is_not(serve, folder):
    def behave(text, turn):
        if "mine q0" in text:
            return says("I would rather not.")
        if "mine q1" in text and turn <= 2:
            return 503, {}, b"down"
        return says("8 4")

    server = serve(behave)
    store = folder / "reviews.jsonl"
    found = judge_all(questions_of(folder), read_prompts(), quick(server, tries=2), store)
    assert [one.outcome for one in found] == ["unparsed", "failed", *["scored"] * 4]
    with pytest.raises(
        StageError, match=r"2 of 6 judgments have no score \(1 could not be read, 1 not asked\)"
    ):
        summarise(found)
    found = judge_all(questions_of(folder), read_prompts(), quick(server, tries=2), store)
    assert [one.outcome for one in found] == ["unparsed", *["scored"] * 5]
    assert max(count for text, count in server.times.items() if "mine q0" in text) == 1
    summary = summarise(found, maximum_errors=0.2, published=True)
    assert summary.counts == {"scored": 5, "unparsed": 1, "failed": 0}
    assert summary.total.value == pytest.approx(50)
    # The published rule: (-1 + 3 * 4) / (-1 + 3 * 8).
    assert summary.published == pytest.approx(
        {"conv": 100 * 11 / 23, "detail": 50, "total": (1100 / 23 + 50) / 2}
    )


def test_replay_refuses_judgments_of_other_answers(serve, folder):
    server = serve(lambda *_: says("8 4"))
    judge_all(questions_of(folder), read_prompts(), quick(server), folder / "r.jsonl")
    with pytest.raises(DataError, match="no judgment of 6 requests"):
        replay(questions_of(folder), read_prompts(), folder / "r.jsonl", "another-judge")
    write(
        folder / "answers.jsonl", [{"question_id": f"q{i}", "text": f"mine, changed {i}"} for i in range(6)]
    )
    with pytest.raises(DataError, match="the first of question q0"):
        replay(questions_of(folder), read_prompts(), folder / "r.jsonl", "a-judge")


def test_replay_reads_the_published_scripts_file_and_matches_its_numbers(folder):
    scores = [(8, 7), (9, 3), (-1, -1), (6, 6), (10, 5), (7, 7)]
    lines = []
    for i, (a, b) in enumerate(scores):
        review = f"{a} {b}\nwhy" if a > 0 else "Sorry"
        lines.append({"question_id": f"q{i}", "category": "x", "content": review, "tuple": [a, b]})
    write(folder / "published.jsonl", lines)
    found = replay(questions_of(folder), read_prompts(), folder / "published.jsonl", "gpt")
    summary = summarise(found, maximum_errors=0.5, published=True)
    by_script = {"conv": 100 * (7 + 3 - 1 + 6) / (8 + 9 - 1 + 6), "detail": 100 * 12 / 17}
    assert {name: summary.published[name] for name in by_script} == pytest.approx(by_script)
    assert summary.published["total"] == pytest.approx(sum(by_script.values()) / 2)
    assert summary.categories["conv"].value == pytest.approx(100 * 16 / 23)
    assert summary.categories["conv"].questions == 3


# --- intervals -----------------------------------------------------------------------------------------


def made(scores, category="conv", per_image=1, start=0):
    return [
        Judgment(
            f"q{start + i}", category, f"i{(start + i) // per_image}", False, "scored", pair, "", "", str(i)
        )
        for i, pair in enumerate(scores)
    ]


def draw(generator, questions, shift=0.0):
    reference = generator.normal(7, 1, questions)
    model = reference - 1 + generator.normal(shift, 1, questions)
    return [(float(a), float(b)) for a, b in zip(reference, model, strict=True)]


def test_interval_covers_the_true_score():
    generator = np.random.default_rng(1)
    hits = 0
    for turn in range(200):
        total = summarise(made(draw(generator, 60)), draws=300, seed=turn).total
        hits += total.low <= 100 * 6 / 7 <= total.high
    assert 0.90 <= hits / 200 <= 0.99


def test_questions_on_one_image_widen_the_interval():
    generator = np.random.default_rng(2)
    pairs = [pair for pair in draw(generator, 20) for _ in range(4)]  # four alike on each image
    alone = summarise(made(pairs)).total
    together = summarise(made(pairs, per_image=4)).total
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.25)


def test_difference_is_paired_over_questions():
    generator = np.random.default_rng(3)
    base = draw(generator, 80)
    better = [(a, b + 0.3) for a, b in base]
    change = difference(made(base), made(better))
    assert change.value == pytest.approx(100 * 0.3 / np.mean([a for a, _ in base]), rel=1e-9)
    assert change.low > 0  # though each score's own interval is wider than the difference
    own = summarise(made(base)).total
    assert own.high - own.low > change.high - change.low
    assert difference(made(base), made(better)) == change
    with pytest.raises(DataError, match="different questions"):
        difference(made(base), made(better, start=500))


def test_total_is_the_mean_of_categories_whatever_their_sizes():
    found = made([(8.0, 4.0)] * 10) + made([(8.0, 8.0)], "detail", start=10)
    summary = summarise(found)
    assert summary.total.value == pytest.approx(75)
    assert summary.categories["detail"].questions == 1


def test_nothing_judged_is_an_error():
    with pytest.raises(StageError, match="0 of 0"):
        summarise([])
    unread = [Judgment("q", "c", "i", False, "unparsed", None, "", "", "r")]
    with pytest.raises(DataError, match="no judgment has a score"):
        summarise(unread, maximum_errors=1.0)


# --- the command ---------------------------------------------------------------------------------------


def call(capsys, *words):
    app([str(word) for word in words], result_action="return_value")
    return capsys.readouterr().out


def test_command_judges_then_replays_and_compares(serve, folder, capsys, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    server = serve(lambda text, _: says("6 8" if model_is_first(text) else "8 6"))
    paths = (folder / "questions.jsonl", folder / "answers.jsonl", "--reference", folder / "reference.jsonl")
    rest = ("--contexts", folder / "contexts.jsonl", "--judge", "a-judge", "--swap")
    words = ("judge", *paths, "--judgments", folder / "r.jsonl", *rest)
    shown = call(capsys, *words, "--address", server.address, "--key-variable", "JUDGE_KEY", "--published")
    assert "75.0" in shown
    assert "12 scored, 0 could not be read, 0 not asked" in shown
    assert "on 0% of the questions" in shown
    assert set(server.keys) == {"Bearer sesame"}
    found = json.loads(call(capsys, *words, "--json"))
    assert found["summaries"][0]["total"]["value"] == pytest.approx(75)
    assert len(server.requests) == 12
    same = ("--against", folder / "answers.jsonl", "--against-judgments", folder / "r.jsonl")
    assert "difference (first minus second): 0.0 (0.0 to 0.0) on 6 questions" in call(capsys, *words, *same)
    with pytest.raises(InputError, match="belong together"):
        call(capsys, *words, "--against", folder / "answers.jsonl")
    with pytest.raises(InputError, match="out of range"):
        call(capsys, *words, "--max-errors", "2")
