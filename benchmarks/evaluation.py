"""Few-shot tasks with our runner and with lm-evaluation-harness's Hugging Face backend.

    python benchmarks/evaluation.py --peer /path/to/venv/bin/python [--tasks knowledge,endings,answers]

The peer's environment: `python -m venv V && V/bin/pip install -c constraints.txt "lm_eval[hf]"`.
Same model (random weights, written as a Hugging Face directory), same items, same prompts, same cutting into
tokens, float32, the same number of threads, one process each, one after the other. The peer gets each batch
size of `--batches` and its best one counts; we have one setting. Three tasks, made of drawn words in the
lengths of real ones:

knowledge   as MMLU: description and five shots that all items of a subject share, four letters to choose from
endings     as HellaSwag: four shots drawn anew for each item, four endings of many tokens
answers     as llm-jp-eval's questions: instruction and four shots that all items share, greedy answers

Checked: log-likelihoods differ by 1e-4 at most; written texts are the same but for near ties. Printed: items
per second of both, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tsugiki.evaluation.backend import Choices, Prompt
from tsugiki.evaluation.engines.loading import Engine, load_backend
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.tokenizer import train_byte_level_bpe

PEER = Path(__file__).with_name("peer_lm_eval.py")
TOLERANCE = 1e-4
LETTERS = "ABCD"
ANSWER_TOKENS = 24
VOCABULARY = 6144


@dataclass(frozen=True)
class Task:
    """Items in the form that both sides are asked."""

    name: str
    choices: tuple[Choices, ...] = ()
    prompts: tuple[Prompt, ...] = ()

    @property
    def items(self) -> int:
        """How many."""
        return len(self.choices) + len(self.prompts)


class Words:
    """Text of drawn words, some far more frequent than others."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        syllables = [c + v + e for c in "bdfghklmnprstvz" for v in "aeiou" for e in ("", "n", "r", "s")]
        self._words = ["".join(self._random.choices(syllables, k=1 + n % 3)) for n in range(6000)]
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]

    def text(self, low: int, high: int) -> str:
        """Between `low` and `high` words."""
        return " ".join(self._random.choices(self._words, self._weights, k=self._random.randint(low, high)))


def knowledge(words: Words, items: int) -> Task:
    """Two subjects; shots of a subject are shared by its items."""

    def question(answer: str) -> str:
        options = "".join(f"{letter}. {words.text(2, 10)}\n" for letter in LETTERS)
        return f"{words.text(12, 45)}\n{options}Answer:{answer}"

    asked = []
    for subject in range(2):
        shots = "\n\n".join(question(f" {LETTERS[n % 4]}") for n in range(5))
        head = f"The following are multiple choice questions (with answers) about {words.text(2, 2)}.\n\n"
        options = tuple(f" {letter}" for letter in LETTERS)
        number = (items + subject) // 2
        asked += [Choices(f"{head}{shots}\n\n{question('')}", options) for _ in range(number)]
    return Task("knowledge", choices=tuple(asked))


def endings(words: Words, items: int) -> Task:
    """Four fresh shots an item, as lm-evaluation-harness draws them."""

    def begun() -> str:
        return f"{words.text(2, 3)}: {words.text(15, 40)}"

    asked = []
    for _ in range(items):
        shots = "".join(f"{begun()} {words.text(12, 30)}\n\n" for _ in range(4))
        asked.append(Choices(shots + begun(), tuple(f" {words.text(12, 30)}" for _ in range(4))))
    return Task("endings", choices=tuple(asked))


def answers(words: Words, items: int) -> Task:
    """Four shots for all items; no stop is ever written by random weights, so every answer has all tokens."""
    shots = "".join(f"Question: {words.text(10, 30)}\nAnswer: {words.text(1, 6)}\n\n" for _ in range(4))
    head = f"{words.text(30, 40)}\n\n{shots}"
    return Task(
        "answers",
        prompts=tuple(
            Prompt(f"{head}Question: {words.text(10, 30)}\nAnswer:", 10_000, 0, maximum_tokens=ANSWER_TOKENS)
            for _ in range(items)
        ),
    )


def make_model(directory: Path, words: Words) -> int:
    """A model of about 60 M parameters with random weights; returns their number."""
    tokenizer = train_byte_level_bpe([words.text(300, 400) for _ in range(300)], VOCABULARY)
    shape = replace(
        preset("llama-nano"), vocabulary_size=VOCABULARY, hidden_size=768, intermediate_size=2048, layers=8,
        heads=12, kv_heads=4, head_dim=64, max_positions=2048, initializer_std=0.05,
    )  # fmt: skip
    decoder = Decoder(shape)
    initialise(decoder, 0)
    save_model(decoder, tokenizer, directory)
    return sum(parameter.numel() for parameter in decoder.parameters())


def ours(backend: Any, task: Task) -> tuple[float, list[Any]]:
    """Seconds and answers, warmed up on one item that is asked again."""
    if task.choices:
        backend.choice_likelihoods(task.choices[:1])
    else:
        backend.continuations(task.prompts[:1])
    begun = time.perf_counter()
    if task.choices:
        found: list[Any] = backend.choice_likelihoods(task.choices)
        seconds = time.perf_counter() - begun
        return seconds, [-option.nll_nats for options in found for option in options]
    found = backend.continuations(task.prompts)
    return time.perf_counter() - begun, [answer.text for answer in found]


def requests_of(task: Task) -> list[dict[str, Any]]:
    """The same questions for the peer."""
    if task.choices:
        return [
            {"kind": "loglikelihood", "context": question.context, "continuation": option}
            for question in task.choices
            for option in question.options
        ]
    return [
        {
            "kind": "generate_until",
            "context": prompt.text,
            "tokens": prompt.maximum_tokens,
            "stops": ["</s>"],
        }
        for prompt in task.prompts
    ]


def theirs(python: str, model: Path, task: Task, batch: int, threads: int) -> tuple[float, list[Any]]:
    """Seconds and answers of the peer."""
    requests, result = (model.parent / f"{task.name}.{name}.json" for name in ("requests", "answers"))
    requests.write_text(json.dumps(requests_of(task)))
    command = [python, str(PEER), str(model), str(requests), str(result), "--batch", str(batch)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
    said = json.loads(result.read_text())
    return said["seconds"], said["answers"]


def compare(task: Task, mine: Sequence[Any], other: Sequence[Any]) -> str:
    """What differs, in words; fails where log-likelihoods do."""
    if task.choices:
        worst = max(abs(a - b) for a, b in zip(mine, other, strict=True))
        if worst > TOLERANCE:
            raise SystemExit(f"{task.name}: log-likelihoods differ by {worst:.2e}")
        return f"log-likelihoods differ by {worst:.1e} at most"
    same = sum(a.strip() == b.strip() for a, b in zip(mine, other, strict=True))
    if same < 0.9 * task.items:
        raise SystemExit(f"{task.name}: only {same} of {task.items} texts are the same")
    return f"{same} of {task.items} texts are the same"


def main() -> None:
    """Run all tasks and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", required=True, help="python that has lm_eval")
    parser.add_argument("--tasks", default="knowledge,endings,answers")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of ours; the median counts")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    makers = {"knowledge": knowledge, "endings": endings, "answers": answers}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        words = Words(0)
        print(f"{make_model(model, words) / 1e6:.0f} M parameters, {given.threads} threads, float32")
        engine = Engine(2048, 1536, 2048, boundary="context")
        for name in given.tasks.split(","):
            task = makers[name](words, given.items)
            timed = [ours(load_backend(model, engine), task) for _ in range(given.repeats)]
            mine = task.items / statistics.median(seconds for seconds, _ in timed)
            best = 0.0
            for batch in map(int, given.batches.split(",")):
                seconds, said = theirs(given.peer, model, task, batch, given.threads)
                note = compare(task, timed[0][1], said)
                print(f"  {name}: lm-eval, batch {batch}: {task.items / seconds:.2f} items/s", flush=True)
                best = max(best, task.items / seconds)
            print(f"{name}: {mine:.2f} against {best:.2f} items/s = {mine / best:.1f} x; {note}", flush=True)


if __name__ == "__main__":
    main()
