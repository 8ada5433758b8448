"""What the rows of new pieces are made from, beyond the base's: counts of the corpus, or distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsugiki.artifacts.contract import Workspace
from tsugiki.models.directory import EMBEDDING, HEAD, load_decoder
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.config import Config
from tsugiki.vocabulary.distillation import (
    Distilled,
    Settings,
    distil_head_rows,
    distil_input_rows,
    embedding_of,
)
from tsugiki.vocabulary.extend import Corpus
from tsugiki.vocabulary.learning import Learnt
from tsugiki.vocabulary.rows import NOTHING, Knowledge, subtoken_mean
from tsugiki.vocabulary.snippets import collect_snippets, collect_windows
from tsugiki.vocabulary.unigram_words import UnigramWords

_WINDOW_TOKENS = 64


def row_knowledge(
    config: Config, base: Path, learnt: Learnt, out: Workspace
) -> tuple[Knowledge, dict[str, Any]]:
    """What `config.initialise` needs, and facts of how it was got."""
    if config.initialise == "frequency-weighted-mean":
        return Knowledge(frequency_V=base_frequencies(learnt.base, learnt.words)), {}
    if config.initialise == "distillation":
        return _distil(config, base, learnt, out)
    return NOTHING, {}


def base_frequencies(base: TextTokenizer, words: Corpus) -> torch.Tensor:
    """How often each piece of the base occurs in the words, as the base itself encodes them, (V,)."""
    if isinstance(words, UnigramWords):
        return torch.from_numpy(words.count_pieces(base))
    counts = np.bincount(
        words.token_S, weights=words.count_W[words.word_S], minlength=base.size + len(words.new_characters)
    )
    for place, ids in enumerate(base.encode_within(words.new_characters)):
        np.add.at(counts, ids, counts[base.size + place])  # the base has these characters as bytes
    return torch.from_numpy(counts[: base.size].copy())


def _distil(config: Config, base: Path, learnt: Learnt, out: Workspace) -> tuple[Knowledge, dict[str, Any]]:
    wanted, extension = config.distillation, learnt.extension
    settings = Settings(extension.base_size, wanted.batch, wanted.learning_rate, wanted.epochs)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    decoder = load_decoder(base).to(device).requires_grad_(requires_grad=False)
    snippets = collect_snippets(extension, learnt.texts, per_piece=wanted.snippets, tokens=wanted.tokens)
    start = {EMBEDDING: embedding_of(decoder).weight, HEAD: decoder.head_weight_VD}
    start = {
        name: subtoken_mean(rows_VD[: extension.base_size].cpu(), extension.components).to(device)
        for name, rows_VD in start.items()
    }
    done = {
        EMBEDDING: distil_input_rows(
            decoder,
            start[EMBEDDING],
            snippets,
            settings,
            seed=config.seed,
            on_batch=lambda done, of: out.progress(1, 5, "steps", f"distilling rows, batch {done} of {of}"),
        )
    }
    if not decoder.config.tied_embeddings:
        # As many tokens as the snippets hold, so that neither matrix gets more of the work than the other.
        count = max(1, len(snippets) * wanted.tokens // _WINDOW_TOKENS)
        windows = collect_windows(extension, learnt.texts, count=count, tokens=_WINDOW_TOKENS)
        done[HEAD] = distil_head_rows(
            decoder,
            start[HEAD],
            windows,
            settings,
            seed=config.seed,
            on_batch=lambda done, of: out.progress(1, 5, "steps", f"rows of the head, batch {done} of {of}"),
        )
    facts = {"snippets": len(snippets), **{_NAMES[name]: _losses(one) for name, one in done.items()}}
    return Knowledge(learnt={name: one.rows_RD.cpu() for name, one in done.items()}), {"distillation": facts}


_NAMES = {EMBEDDING: "input", HEAD: "head"}


def _losses(one: Distilled) -> dict[str, float]:
    return {"loss_before": round(one.loss_before, 6), "loss_after": round(one.loss_after, 6)}
