"""From settings to an extension: what is told on the way."""

from __future__ import annotations

import pytest

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.models.directory import vocabulary_size
from tsugiki.models.tokenizer import load_tokenizer
from tsugiki.vocabulary.config import Config
from tsugiki.vocabulary.learning import learn_extension
from tsugiki.vocabulary.words import BATCH_DOCUMENTS, Watched


@pytest.mark.parametrize("method", ["continued", "append"])
def test_learning_tells_what_it_does_before_each_long_step(base, corpora, tmp_path, method):
    notes = []
    out = open_workspace(tmp_path, on_progress=lambda _done, _total, _unit, note: notes.append(note))
    config = Config(model="base", corpus="japanese", add=40, method=method)
    inputs = Inputs({"base": (base,), "japanese": (corpora["japanese"],)})
    try:
        learnt = learn_extension(config, inputs, out, load_tokenizer(base), vocabulary_size(base))
    finally:
        out.metrics.close()
    assert learnt.extension.added == 40
    assert notes == [
        "reading documents",
        "0 documents read",
        "learning 40 pieces",
        "choosing pieces",
    ]


def test_watched_texts_are_the_texts_and_can_be_read_again():
    texts, told = [str(number) for number in range(2 * BATCH_DOCUMENTS + 1)], []
    watched = Watched(texts, told.append)
    assert list(watched) == texts == list(watched)
    assert told == [0, BATCH_DOCUMENTS, 2 * BATCH_DOCUMENTS] * 2
