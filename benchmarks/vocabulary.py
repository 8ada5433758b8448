"""Vocabulary extension: how pieces are learnt, how rows begin, and how long it takes.

python benchmarks/vocabulary.py [RUN] [--pieces 2048] [--snippets 8] [--learning-rate 1e-3]

RUN: a finished run of recipes/demo-ja.yaml (default runs/demo-ja). Three tables:
1. tokens of held-out text by method, against a separate BPE by tokenizers, appended; unreachable pieces;
2. bits per byte of held-out text right after the extension, before any training, by initialisation;
3. seconds of learning, against Hugging Face's trainer on the same text.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from tokenizers import Tokenizer, models, trainers

from tsugiki.models.directory import load_decoder
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer
from tsugiki.vocabulary.config import Config, Distillation
from tsugiki.vocabulary.curve import count_tokens
from tsugiki.vocabulary.extend import Extension, extend_tokenizer, unreachable_pieces
from tsugiki.vocabulary.initialising import row_knowledge
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.learning import Learnt, held_out_texts
from tsugiki.vocabulary.rows import Initialisation, write_extended_model
from tsugiki.vocabulary.words import Words, segment_words, training_texts

WINDOW_TOKENS = 256
INITIALISATIONS: tuple[Initialisation, ...] = (
    "random",
    "subtoken-mean",
    "frequency-weighted-mean",
    "distillation",
)


def appended_by_hugging_face(base: TextTokenizer, texts: Sequence[str], pieces: int) -> TextTokenizer:
    """The usual way: train a BPE of its own on the texts, append what the base lacks, merges behind."""
    data = json.loads(base.tokenizer.to_str())
    size = pieces
    while True:
        other = Tokenizer(models.BPE())
        other.pre_tokenizer = base.tokenizer.pre_tokenizer
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=[piece for piece in base.pieces if len(piece) == 1],
        )
        other.train_from_iterator(texts, trainer)
        merges = json.loads(other.to_str())["model"]["merges"]
        new = [merge for merge in merges if "".join(merge) not in data["model"]["vocab"]]
        if len(new) >= pieces:
            break
        size += pieces - len(new) + 64
    vocabulary, kept = data["model"]["vocab"], []
    for left, right in new[:pieces]:
        vocabulary.setdefault(left + right, len(vocabulary))
        kept.append([left, right])
    data["model"]["merges"] += kept
    return TextTokenizer(Tokenizer.from_str(json.dumps(data)), base.bos_id, base.eos_id)


@torch.inference_mode()
def bits_per_byte(directory: Path, texts: Sequence[str]) -> float:
    """Bits per byte of the texts, in windows of `WINDOW_TOKENS` tokens that do not overlap."""
    tokenizer, decoder = load_tokenizer(directory), load_decoder(directory)
    nats = 0.0
    for ids_T in tokenizer.encode_batch(texts):
        ids = [tokenizer.bos_id or 0, *ids_T.tolist()]
        for start in range(0, len(ids) - 1, WINDOW_TOKENS):
            part = torch.tensor(ids[start : start + WINDOW_TOKENS + 1])
            logits_TV = decoder(part[None, :-1])[0]
            nats += float(F.cross_entropy(logits_TV.float(), part[1:], reduction="sum"))
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def methods(
    base: TextTokenizer, words: Words, train: Sequence[str], held_out: Sequence[str], pieces: int
) -> Extension:
    """Print table 1 and 3; the continued extension."""
    limits = Limits(pieces, 2, 16, ascii=False)
    print(f"base: {count_tokens(base, held_out):,} tokens on held-out text")
    extend_tokenizer(base, words, limits._replace(wanted=8))  # compiles
    for method in ("append", "continued"):
        start = time.perf_counter()
        extension = extend_tokenizer(base, words, limits, method=method)
        seconds = time.perf_counter() - start
        tokens = count_tokens(extension.tokenizer, held_out)
        missed = len(unreachable_pieces(extension.tokenizer, base.size))
        print(f"{method}: {tokens:,} tokens, {missed} unreachable, {seconds:.1f} s")
    start = time.perf_counter()
    peer = appended_by_hugging_face(base, train, pieces)
    seconds = time.perf_counter() - start
    tokens, missed = count_tokens(peer, held_out), len(unreachable_pieces(peer, base.size))
    print(
        f"a BPE of its own by tokenizers, appended: {tokens:,} tokens, {missed} unreachable, {seconds:.1f} s"
    )
    return extension


def initialisations(run: Path, learnt: Learnt, held_out: Sequence[str], options: Any) -> None:
    """Print table 2."""
    print(f"base: {bits_per_byte(run / 'base', held_out):.4f} bits per byte")
    settings = Distillation(snippets=options.snippets, learning_rate=options.learning_rate)
    quiet: Any = SimpleNamespace(progress=lambda *_: None)
    for name in INITIALISATIONS:
        config = Config(model="base", corpus="japanese", add=1, initialise=name, distillation=settings)
        start = time.perf_counter()
        knowledge, how = row_knowledge(config, run / "base", learnt, quiet)
        seconds = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            write_extended_model(run / "base", learnt.extension, root, name, seed=0, knowledge=knowledge)
            found = bits_per_byte(root, held_out)
        print(f"{name}: {found:.4f} bits per byte, {seconds:.1f} s {how or ''}", flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo-ja"))
    parser.add_argument("--pieces", type=int, default=2048)
    parser.add_argument("--snippets", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    if not options.run.exists():
        print(f"{options.run} does not exist: run recipes/demo-ja.yaml first, or name a run. Skipped.")
        return
    base = load_tokenizer(options.run / "base")
    texts = training_texts(options.run / "japanese", 20_000_000)
    held_out = held_out_texts(options.run / "japanese")
    words = segment_words(base, texts)
    extension = methods(base, words, list(texts), held_out, options.pieces)
    initialisations(options.run, Learnt(base, extension, words, texts, ()), held_out, options)


if __name__ == "__main__":
    main()
