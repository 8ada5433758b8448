"""Prompts that a window can't hold: shortened as published in the published variants, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tsugiki.evaluation.backend import Continuation
from tsugiki.evaluation.benchmarks.benchmark import Benchmark
from tsugiki.evaluation.benchmarks.fitting import fitted
from tsugiki.evaluation.benchmarks.questions import Question, questions_of, read_material
from tsugiki.evaluation.benchmarks.reading import load_task, settings_of
from tsugiki.evaluation.benchmarks.schema import Fit, Settings
from tsugiki.evaluation.benchmarks.store import sample_store

SENTENCES = Fit(by="sentences", before="要約:", sentence_end="。")
EXAMPLES = Fit(by="examples")


@dataclass
class Characters:
    """A model whose tokens are characters; as a backend it writes nothing and keeps what it was asked."""

    window: int

    def count(self, text):
        return len(text)

    def beginning(self, text, tokens):
        return text[:tokens]

    @property
    def measuring(self):
        return self

    def pieces(self, texts):
        return [list(text) for text in texts]

    def continuations(self, prompts):
        self.prompts = list(prompts)
        return [Continuation("x", 1, False) for _ in prompts]


def question(*sections):
    prompt = "".join(text + rest for text, rest in sections)
    return Question("t", "s", "ja", "", "c", "i", prompt, sections=sections)


NEWS = question(
    ("", "要約せよ。\n\n"),
    ("記事:一二三。四五六。七八九。\n", "要約:一。\n\n"),
    ("記事:甲乙。丙丁。\n", "要約:"),
)


def test_fitted_prompt_that_fits_is_the_whole_one():
    for fit in (SENTENCES, EXAMPLES):
        assert fitted(fit, NEWS, 5, Characters(len(NEWS.prompt) + 5)) == NEWS.prompt


def test_fitted_sentences_each_article_keeps_the_first_that_its_share_holds():
    """46 characters less 20 of the answer leave 13 for each of two articles; the last full stop is kept."""
    assert fitted(SENTENCES, NEWS, 20, Characters(46)) == (
        "要約せよ。\n\n記事:一二三。四五六。\n要約:一。\n\n記事:甲乙。丙丁。\n要約:"
    )
    assert fitted(SENTENCES, NEWS, 20, Characters(38)) == (
        "要約せよ。\n\n記事:一二三。\n要約:一。\n\n記事:甲乙。丙丁。\n要約:"
    )


def test_fitted_sentences_first_one_alone_too_long_is_cut_in_tokens():
    assert fitted(SENTENCES, NEWS, 0, Characters(8)) == "要約せよ。\n\n記事:一\n要約:一。\n\n記事:甲\n要約:"
    assert fitted(SENTENCES, NEWS, 9, Characters(8)).endswith("\n\n\n要約:")  # no room at all


def test_fitted_examples_are_left_out_from_the_first_on():
    sums = question(("", "P\n"), ("", "Q1 A1\n"), ("", "Q2 A2\n"), ("", "Q3 A"))
    assert fitted(EXAMPLES, sums, 0, Characters(17)) == "P\nQ2 A2\nQ3 A"
    assert fitted(EXAMPLES, sums, 0, Characters(11)) == "P\nQ3 A"
    assert fitted(EXAMPLES, sums, 0, Characters(1)) == "P\nQ3 A"  # the backend cuts its left, and says so


@given(st.lists(st.text("あ。\n", min_size=1, max_size=30), min_size=1, max_size=4), st.integers(1, 120))
def test_fitted_sentences_never_take_more_than_a_share_and_keep_the_rest(texts, window):
    sections = (("", "P"), *((text, "要約:R") for text in texts))
    found = fitted(SENTENCES, question(*sections), 0, Characters(window))
    parts = found.removeprefix("P").split("要約:R")[:-1]
    assert len(parts) == len(texts)
    for part, text in zip(parts, texts, strict=True):
        assert part == text or text.startswith(part[:-1].rstrip("。"))
        assert part == text or len(part) <= window // len(texts) + 2


def rows_of(name, variant, window):
    task = load_task(name)
    benchmark = Benchmark(task, variant, settings_of(task, variant))
    material = read_material(task, benchmark.settings, sample_store())
    items = questions_of(task, benchmark.settings, material, name=name, dataset="s", most=None, seed=0)
    model = Characters(window)
    return items, model, benchmark.rows(model, items)


def test_mgsm_published_leaves_examples_out_and_corrected_does_not():
    whole = rows_of("mgsm-ja", "published", 100_000)[0]
    room = min(len(item.prompt) for item in whole) - 1
    items, model, rows = rows_of("mgsm-ja", "published", 256 + room)
    asked = [prompt.text for prompt in model.prompts]
    assert all(len(text) <= room for text in asked)
    assert {text.count("問題：") for text in asked} <= {2, 3, 4}
    assert all(text.startswith("問題：") for text in asked)
    assert all(item.prompt.endswith(text) for item, text in zip(items, asked, strict=True))
    assert all(row["cut_context"] for row in rows)
    items, model, rows = rows_of("mgsm-ja", "corrected", 256 + room)
    assert [prompt.text for prompt in model.prompts] == [item.prompt for item in items]
    assert not any(row["cut_context"] for row in rows)


def test_xlsum_published_reads_the_whole_article_or_what_the_window_holds():
    pytest.importorskip("MeCab")
    items, model, _ = rows_of("xlsum-ja", "published", 100_000)
    whole = [prompt.text for prompt in model.prompts]
    assert whole == [item.prompt for item in items]
    corrected = rows_of("xlsum-ja", "corrected", 100_000)[0]
    assert len(whole[2]) > len(corrected[2].prompt) + 50  # beyond its 3,000 bytes
    items, model, rows = rows_of("xlsum-ja", "published", 700)
    for item, prompt, row in zip(items, model.prompts, rows, strict=True):
        assert row["cut_context"] == (prompt.text != item.prompt)
        assert prompt.text.endswith("\n要約:")
        assert prompt.text.count("ニュース記事:") == 2
    assert rows[2]["cut_context"]


def test_settings_fit_before_what_the_query_has_not_is_refused():
    settings = settings_of(load_task("xlsum-ja"), "published").model_dump()
    with pytest.raises(ValidationError, match="has to stand once in `query`"):
        Settings.model_validate(settings | {"fit": {"by": "sentences", "before": "答え:"}})
