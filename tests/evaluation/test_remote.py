"""A model behind an address: a real server on loopback that answers from a model of ours."""

from __future__ import annotations

import json
import math
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from tsugiki.artifacts.contract import open_workspace
from tsugiki.artifacts.scores import read_scores
from tsugiki.errors import InputError
from tsugiki.evaluation.backend import Choices, Prompt, Sampling
from tsugiki.evaluation.engines.loading import Engine, load_backend
from tsugiki.evaluation.engines.remote import RemoteBackend, Server
from tsugiki.evaluation.stage import Config, run
from tsugiki.models.tokenizer import load_tokenizer


class Completions:
    """Answers like vLLM's `/v1/completions`; `before` may answer otherwise: (status, body, headers)."""

    def __init__(self, local, tokenizer) -> None:
        self.local, self.tokenizer = local, tokenizer
        self.before = lambda *_: None
        self.lock = threading.Lock()
        self.asked: list[dict] = []
        self.at_once, self.most_at_once = 0, 0

    def answer(self, body: dict):
        with self.lock:
            self.asked.append(body)
            number = len(self.asked)
        early = self.before(body, number)
        if early is not None:
            return early
        with self.lock:
            said = self.likelihoods(body) if {"echo", "prompt_logprobs"} & set(body) else self.written(body)
        return 200, json.dumps(said).encode(), {}

    def likelihoods(self, body: dict) -> dict:
        ids = [self.tokenizer.bos_id, *self.tokenizer.encode_batch([body["prompt"]])[0].tolist()]
        with torch.inference_mode():
            logs = self.local._model._decoder(torch.tensor([ids]))[0].double().log_softmax(-1)
        values = [None, *(logs[n, ids[n + 1]].item() for n in range(len(ids) - 1))]
        if "prompt_logprobs" in body:
            named = [
                None if v is None else {str(i): {"logprob": v}} for i, v in zip(ids, values, strict=True)
            ]
            return {"choices": [{"text": "!", "prompt_logprobs": named}]}
        tokens = [*(self.tokenizer.pieces[number] for number in ids), "!"]
        given = {"tokens": tokens, "token_logprobs": [*values, -1.0]}
        return {"choices": [{"text": "!", "logprobs": given}], "usage": {"completion_tokens": 1}}

    def written(self, body: dict) -> dict:
        sampling = None
        if body["temperature"] > 0:
            sampling = Sampling(body["temperature"], body.get("top_k", 0), body.get("top_p", 1.0))
        stops = tuple(body.get("stop", ()))
        prompt = Prompt(body["prompt"], 10**6, body["seed"], sampling, stops, body["max_tokens"])
        [found] = self.local.continuations([prompt])
        reason = "length" if found.truncated else "stop"
        choice = {"text": found.text, "finish_reason": reason, "stop_reason": found.stop}
        return {"choices": [choice], "usage": {"completion_tokens": found.tokens}}


@contextmanager
def served(completions: Completions):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body["_path"], body["_key"] = self.path, self.headers.get("Authorization")
            with completions.lock:
                completions.at_once += 1
                completions.most_at_once = max(completions.most_at_once, completions.at_once)
            try:
                status, content, headers = completions.answer(body)
            finally:
                with completions.lock:
                    completions.at_once -= 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # a client that gave up waiting

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def local(world):
    return load_backend(world.path("base"), Engine(128, 64, 512))


@pytest.fixture
def completions(world, local):
    return Completions(local, load_tokenizer(world.path("base")))


@pytest.fixture
def address(completions):
    with served(completions) as found:
        yield found


def remote(address, **changes):
    return RemoteBackend(Server(address, "nano", **{"pause_s": 0.01, "timeout_s": 5.0} | changes))


QUESTIONS = [
    Choices("The reader opens", (" a page", " the file of data.", "学習")),
    Choices("the rea", ("der", "son")),
    Choices("", ("The page", "A file")),
]


@pytest.mark.parametrize("form", ["echo", "prompt_logprobs"])
def test_likelihoods_equal_those_of_the_model_in_process(address, local, form):
    ours = remote(address, likelihoods=form)
    for there, here in zip(
        ours.choice_likelihoods(QUESTIONS), local.choice_likelihoods(QUESTIONS), strict=True
    ):
        assert [a.tokens for a in there] == [a.tokens for a in here]
        assert [a.nll_nats for a in there] == pytest.approx([a.nll_nats for a in here], rel=1e-5)
    texts = ["The page.", "日本の学習"]
    for one, two in zip(ours.text_likelihoods(texts), local.text_likelihoods(texts), strict=True):
        assert (one.tokens, one.nll_nats) == (two.tokens, pytest.approx(two.nll_nats, rel=1e-5))


def test_likelihoods_harness_boundary_equals_the_one_in_process(world, address):
    here = load_backend(world.path("base"), Engine(128, 64, 512, boundary="context"))
    questions = [Choices("The page ", ("is", "of data"))]
    [there] = remote(address, boundary="context").choice_likelihoods(questions)
    [expected] = here.choice_likelihoods(questions)
    assert [a.tokens for a in there] == [a.tokens for a in expected]
    assert [a.nll_nats for a in there] == pytest.approx([a.nll_nats for a in expected], rel=1e-5)


def test_continuations_equal_those_of_the_model_in_process(address, local):
    prompts = [
        Prompt("The page", 40, 7, maximum_tokens=20),
        Prompt("The file", 60, 3, Sampling(0.8, 40, 0.9)),
        Prompt("The data", 60, 4, Sampling(0.9), stops=(" ", "e")),
    ]
    there, here = remote(address).continuations(prompts), local.continuations(prompts)
    assert [(a.text, a.stop, a.truncated) for a in there] == [(a.text, a.stop, a.truncated) for a in here]


def test_requests_name_model_path_key_and_only_what_is_asked(address, completions):
    remote(address + "/", key="secret").continuations([Prompt("A", 9, 2**40 + 5)])
    [body] = completions.asked
    assert body == {
        "model": "nano", "prompt": "A", "max_tokens": 9, "temperature": 0, "seed": 5,
        "_path": "/v1/completions", "_key": "Bearer secret",
    }  # fmt: skip


def test_fault_that_stays_is_the_items_error(address, completions):
    completions.before = lambda body, _: (500, b"no", {}) if body["prompt"] == "bad" else None
    good, bad = remote(address, retries=2).continuations([Prompt("good", 20, 0), Prompt("bad", 20, 0)])
    assert good.error is None
    assert bad.error == "the server says 500: no, 3 times"
    assert (bad.text, bad.tokens) == ("", 0)


def test_refused_request_is_not_repeated(address, completions):
    completions.before = lambda *_: (400, b"maximum context length is 128", {})
    [[answer]] = remote(address).choice_likelihoods([Choices("", ("long",))])
    assert "maximum context length" in answer.error
    assert math.isnan(answer.nll_nats)
    assert len(completions.asked) == 1


@pytest.mark.parametrize("status", [302, 401, 404])
def test_wrong_address_or_key_raises_at_once(address, completions, status):
    completions.before = lambda *_: (status, b"", {"Location": "http://127.0.0.1:9/"})
    with pytest.raises(InputError, match=f"says {status}"):
        remote(address).continuations([Prompt("A", 9, 0)])


def test_nobody_at_the_address_is_an_error():
    [answer] = remote("http://127.0.0.1:9/v1", retries=0).continuations([Prompt("A", 9, 0)])
    assert "did not answer" in answer.error


@pytest.mark.parametrize(
    "content",
    [
        b"not json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"text": 7}]}', b'{"choices": 3}',
        b'{"choices": [{"text": "a", "logprobs": null}]}',
        b'{"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": []}}]}',
        b'{"choices": [{"logprobs": {"tokens": ["a","b","c"], "token_logprobs": [null, null, 0]}}]}',
        b'{"choices": [{"logprobs": {"tokens": ["a","b","c"], "token_logprobs": [null, NaN, 0]}}]}',
        b'{"choices": [{"logprobs": {"tokens": ["a","b"], "token_logprobs": ["x", 0]}}]}',
    ],
)  # fmt: skip
def test_nonsense_is_the_items_error(address, completions, content):
    completions.before = lambda *_: (200, content, {})
    ours = remote(address, retries=1)
    [likelihood] = ours.text_likelihoods(["The page"])
    assert likelihood.error
    if b"logprobs" not in content:
        assert ours.continuations([Prompt("A", 9, 0)])[0].error


@pytest.mark.parametrize("content", [b'{"choices": [{"prompt_logprobs": [null, 3]}]}', b'{"choices": [{}]}'])
def test_nonsense_prompt_logprobs_are_the_items_error(address, completions, content):
    completions.before = lambda *_: (200, content, {})
    assert remote(address, likelihoods="prompt_logprobs").text_likelihoods(["A"])[0].error


def test_requests_run_side_by_side_and_keep_their_order(address, completions):
    completions.before = lambda body, _: (
        time.sleep(0.01 * (5 - int(body["prompt"]))) or (200, _said(body["prompt"]), {})
    )
    answers = remote(address, concurrency=3).continuations([Prompt(str(n), 9, 0) for n in range(6)])
    assert [answer.text for answer in answers] == list("012345")
    assert completions.most_at_once == 3


def _said(text: str) -> bytes:
    return json.dumps({"choices": [{"text": text, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize("address", ["localhost:8000", "file:///etc/passwd", "http://"])
def test_server_what_is_no_address_raises(address):
    with pytest.raises(InputError, match="is no address"):
        Server(address, "m")


def test_caps_hold_whatever_the_server_writes(address, completions):
    completions.before = lambda *_: (200, _said("日本語の長い文 STOP x"), {})
    cut, stopped = remote(address).continuations([Prompt("A", 7, 0), Prompt("A", 90, 0, stops=("STOP",))])
    assert (cut.text, cut.truncated) == ("日本", True)
    assert (stopped.text, stopped.stop) == ("日本語の長い文 ", "STOP")


def evaluate(config, inputs, directory):
    out = open_workspace(directory)
    try:
        run(config, inputs, out)
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()


def test_evaluate_stage_model_behind_an_address_scores_as_its_directory(world, address, tmp_path):
    """The same model twice, in this process and behind the address: the same likelihoods."""
    models = ("base", f"{address}#nano")
    config = Config(models=models, heldout=("english",), tasks=("cloze",), cloze_items=4, bootstrap_draws=50)
    evaluate(config, world, tmp_path)
    rows = read_scores(tmp_path).to_pylist()
    here, there = ([row for row in rows if row["model"] == name] for name in ("base", "nano"))
    # The server of this test has no window; rows that the window has cut are others there.
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if not a["cut_context"]]
    assert pairs
    assert all(b["nll_nats"] == pytest.approx(a["nll_nats"], rel=1e-5) for a, b in pairs)
    assert [reference.name for reference in config.references()] == ["base", "english"]


def test_evaluate_stage_address_without_a_model_raises(world, tmp_path):
    config = Config(models=("http://127.0.0.1:9/v1",), heldout=("english",), tasks=("bits-per-byte",))
    with pytest.raises(InputError, match="does not say which model"):
        evaluate(config, world, tmp_path)


def test_evaluate_stage_key_comes_from_a_file(world, address, completions, tmp_path):
    (tmp_path / "key").write_text("secret\n")
    config = Config(
        models=(f"{address}#nano",), heldout=("english",), tasks=("bits-per-byte",), maximum_documents=1,
        document_bytes=60, server_key=str(tmp_path / "key"),
    )  # fmt: skip
    evaluate(config, world, tmp_path / "out")
    assert {body["_key"] for body in completions.asked} == {"Bearer secret"}
    with pytest.raises(InputError, match="can't be read"):
        evaluate(config.model_copy(update={"server_key": "/absent"}), world, tmp_path / "two")
