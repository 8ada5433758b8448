"""Two nano models that share a tokenizer, a third with another one, and held-out pages in two languages."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tsugiki.artifacts.contract import Inputs
from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.tokenizer import train_byte_level_bpe

ENGLISH_WORDS = tuple(
    "the a model of page data file reader writes holds opens new old first small large and".split()  # noqa: SIM905
)
JAPANESE_WORDS = tuple(
    "私 言語 モデル 日本 学習 する です 文書 を が は 評価 語彙 追加 設定 画面".split()  # noqa: SIM905
)


def english_page(generator: random.Random, sentences: int = 12) -> str:
    made = []
    for _ in range(sentences):
        words = [generator.choice(ENGLISH_WORDS) for _ in range(generator.randint(8, 16))]
        made.append(" ".join(words).capitalize() + ".")
    return " ".join(made[: sentences // 2]) + "\n\n" + " ".join(made[sentences // 2 :])


def japanese_page(generator: random.Random, sentences: int = 12) -> str:
    made = [
        "".join(generator.choice(JAPANESE_WORDS) for _ in range(generator.randint(8, 16))) + "。"
        for _ in range(sentences)
    ]
    return "".join(made)


def document(number: int, text: str, language: str, **changes) -> dict:
    row = dict.fromkeys(documents_schema({}).names)
    return row | {
        "id": f"{language}-{number:03d}",
        "host": f"host{number % 3}.example",
        "text": text,
        "language": language,
        "rejected_by": [],
        "cluster": f"{language}-{number // 2 * 2 if number < 4 else number:03d}",
        "split": "heldout",
        **changes,
    }


def write_pages(directory: Path, rows: list[dict]) -> Path:
    table = pa.Table.from_pylist(rows, schema=documents_schema({}))
    write_documents(directory / "documents" / "part-00000.parquet", table)
    return directory


@pytest.fixture(scope="session")
def make_documents():
    """A function of (directory, texts, language, **changes): a documents artifact, one page a text."""

    def make(directory: Path, texts: list[str], language: str, **changes) -> Path:
        return write_pages(
            directory, [document(n, text, language, **changes) for n, text in enumerate(texts)]
        )

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    generator = random.Random(0)
    return {
        "english": [english_page(generator) for _ in range(12)],
        "japanese": [japanese_page(generator) for _ in range(12)],
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory, texts) -> Inputs:
    """Directories by reference: models base, adapted, other; documents english, japanese."""
    root = tmp_path_factory.mktemp("world")
    paths = {}
    for dataset, language in (("english", "en"), ("japanese", "ja")):
        rows = [document(number, text, language) for number, text in enumerate(texts[dataset])]
        rows.append(document(99, "This page is trained on.", language, split="train"))
        paths[dataset] = (write_pages(root / dataset, rows),)
    shared = train_byte_level_bpe(texts["english"], 300)
    other = train_byte_level_bpe([*texts["english"], *texts["japanese"]], 360)
    for number, (name, tokenizer) in enumerate([("base", shared), ("adapted", shared), ("other", other)]):
        shape = replace(preset("llama-nano"), vocabulary_size=384, max_positions=128, initializer_std=0.15)
        decoder = Decoder(shape)
        initialise(decoder, number)
        (root / name).mkdir()
        save_model(decoder, tokenizer, root / name)
        paths[name] = (root / name,)
    return Inputs(paths)


class Server:
    """An address whose `behave(text, how many times this text came)` gives status, headers and body."""

    def __init__(self, behave):
        self.requests: list[dict] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.times: Counter[str] = Counter()
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
                with lock:
                    outer.requests.append(body)
                    outer.paths.append(self.path)
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
    """A function of a behaviour: a server on loopback with its address and what it was asked."""
    made = []

    def start(behave):
        made.append(Server(behave))
        return made[-1]

    yield start
    for server in made:
        server.close()


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def judged(tmp_path):
    """Six questions on three images in two categories; the model's answer to q5 holds a placeholder."""
    names = [f"q{i}" for i in range(6)]
    asked = []
    for i, name in enumerate(names):
        place = {"category": "conv" if i < 4 else "detail", "image": f"{i // 2}.jpg"}
        asked.append({"question_id": name, "text": f"問{i}？"} | place)
    write_lines(tmp_path / "questions.jsonl", asked)
    write_lines(tmp_path / "contexts.jsonl", [{"image": f"{i}.jpg", "caption": f"絵{i}"} for i in range(3)])
    write_lines(
        tmp_path / "reference.jsonl", [{"question_id": name, "text": f"gold {name}"} for name in names]
    )
    answers = [{"question_id": name, "text": f"mine {name}"} for name in names]
    answers[5]["text"] = "mine q5 {first} {task}"
    write_lines(tmp_path / "answers.jsonl", answers)
    return tmp_path


@pytest.fixture(scope="session")
def write():
    """A function of (path, values): JSON lines."""
    return write_lines
