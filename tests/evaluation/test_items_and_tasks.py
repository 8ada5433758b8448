"""Held-out pages, sentences, and the questions made from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.errors import DataError
from tsugiki.evaluation.backend import Continuation, Likelihood
from tsugiki.evaluation.items import Page, byte_length, cut_bytes, dataset_names, read_heldout, stable_hash
from tsugiki.evaluation.sentences import SentenceRules, sentence_spans
from tsugiki.evaluation.tasks.bits_per_byte import BitsPerByte
from tsugiki.evaluation.tasks.cloze import CONTEXT_BYTES, SENTENCE_BYTES, Cloze
from tsugiki.evaluation.tasks.generation import PROMPT_BYTES, Generation
from tsugiki.languages import load_pack

RULES = {
    code: SentenceRules(
        frozenset(load_pack(code).script.sentence_terminators), load_pack(code).script.spaceless
    )
    for code in ("en", "ja")
}


def pages_of(texts, dataset, language):
    return [
        Page(dataset, f"{language}-{number}", language, "host.example", f"c{number}", text)
        for number, text in enumerate(texts[dataset])
    ]


def sentences(text: str, language: str) -> list[str]:
    return [text[span.start : span.end] for span in sentence_spans(text, RULES[language])]


class FixedBackend:
    """Prefers the longest option and the text it is told to; counts what it is asked."""

    def text_likelihoods(self, texts):
        return [Likelihood(len(text) * log(2), len(text)) for text in texts]

    def choice_likelihoods(self, questions):
        return [
            tuple(
                Likelihood(0.5 * byte_length(option) + number, 3)
                for number, option in enumerate(question.options)
            )
            for question in questions
        ]

    def continuations(self, prompts):
        return [Continuation(" \n" if prompt.seed % 2 else "ok", 2, truncated=True) for prompt in prompts]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("One is here. Two is there! Three?", "en", ["One is here.", "Two is there!", "Three?"]),
        ("See e.g. the manual. Version 1.5 is out.", "en", ["See e.g. the manual.", "Version 1.5 is out."]),
        ('He said "Stop." Then he left.', "en", ['He said "Stop."', "Then he left."]),
        ("A heading\nA sentence. Rest", "en", ["A heading", "A sentence.", "Rest"]),
        (
            "今日は晴れ。「明日は？」と聞く。終わり",
            "ja",
            ["今日は晴れ。", "「明日は？」", "と聞く。", "終わり"],
        ),
        ("版は1.5です。次へ", "ja", ["版は1.5です。", "次へ"]),
        ("", "en", []),
        (" \n ", "ja", []),
    ],
)
def test_sentence_spans_language_facts_give_sentences(text, language, expected):
    assert sentences(text, language) == expected


@given(st.text(alphabet="ab .!?。\n\"'」", max_size=60), st.sampled_from(["en", "ja"]))
def test_sentence_spans_any_text_covers_everything_but_white_space(text, language):
    spans = sentence_spans(text, RULES[language])
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    assert "".join("".join(sentences(text, language)).split()) == "".join(text.split())
    assert all(text[span.start : span.end].strip() == text[span.start : span.end] != "" for span in spans)


@given(st.text(max_size=40), st.integers(0, 60))
def test_cut_bytes_any_text_is_longest_prefix_that_fits(text, size):
    cut = cut_bytes(text, size)
    assert text.startswith(cut)
    assert byte_length(cut) <= size
    assert cut == text or byte_length(text[: len(cut) + 1]) > size


def test_read_heldout_is_deterministic_and_bounded(world):
    def read(count, seed=0):
        directory = world.path("english")
        pages = read_heldout(directory, dataset="e", maximum_documents=count, document_bytes=300, seed=seed)
        return [page.id for page in pages]

    assert len(read(100)) == 12  # the page of the training split is not among them
    assert read(5) == read(100)[:5]
    assert read(2) == read(100)[:2]  # more than four times as many pages as asked for
    assert read(100, seed=1) != read(100)


def test_read_heldout_long_pages_are_cut_at_characters(world):
    pages = read_heldout(world.path("japanese"), dataset="j", maximum_documents=9, document_bytes=100, seed=0)
    assert {byte_length(page.text) for page in pages} == {99}


def test_read_heldout_pages_of_one_id_raises(make_documents, texts, tmp_path):
    make_documents(tmp_path, texts["english"], "en", id="same")
    with pytest.raises(DataError, match="share an id"):
        read_heldout(tmp_path, dataset="d", maximum_documents=9, document_bytes=99, seed=0)


def test_dataset_names_paths_lose_their_place_and_stay_distinct():
    names = dataset_names(["base", "runs/one/base", "org/model/", "/data/model"])
    assert list(names.values()) == ["base", "base-2", "model", "model-2"]


def test_stable_hash_parts_are_kept_apart():
    assert stable_hash("a", "bc") != stable_hash("ab", "c")
    assert stable_hash("日本", 1) == stable_hash("日本", "1")


def test_bits_per_byte_rows_count_bytes_of_the_raw_text(texts):
    task = BitsPerByte()
    items = task.items(pages_of(texts, "japanese", "ja"))
    rows = task.rows(FixedBackend(), items)
    assert [row["score"] for row in rows] == pytest.approx([1 / 3] * 12, rel=0.01)  # a bit a character
    assert rows[0]["bytes"] == byte_length(texts["japanese"][0])
    assert rows[0]["characters"] == len(texts["japanese"][0])


@pytest.mark.parametrize(("dataset", "language"), [("english", "en"), ("japanese", "ja")])
def test_cloze_items_follow_the_page_and_have_comparable_choices(texts, dataset, language):
    pages = {page.id: page for page in pages_of(texts, dataset, language)}
    items = Cloze(40, 4, 0, RULES).items(list(pages.values()))
    assert len(items) == 40
    assert len({item.id for item in items}) == 40
    by_cluster = {page.cluster: page for page in pages.values()}
    for item in items:
        page = by_cluster[item.cluster]
        right = item.choices[item.answer]
        assert item.prompt + right in page.text
        assert CONTEXT_BYTES[0] <= byte_length(item.prompt) <= CONTEXT_BYTES[1]
        sizes = [byte_length(choice.strip()) for choice in item.choices]
        assert SENTENCE_BYTES[0] <= min(sizes) <= max(sizes) <= min(SENTENCE_BYTES[1], 1.6 * min(sizes))
        assert len(set(item.choices)) == 4
        assert not any(choice.strip() in page.text for choice in item.choices if choice != right)


def test_cloze_items_balance_answers_and_pages(texts):
    items = Cloze(24, 4, 0, RULES).items(pages_of(texts, "english", "en"))
    assert set(Counter(item.answer for item in items).values()) == {6}
    assert set(Counter(item.cluster for item in items).values()) == {2}


def test_cloze_items_page_order_does_not_matter_and_seed_does(texts):
    pages = pages_of(texts, "english", "en")
    items = Cloze(10, 4, 0, RULES).items(pages)
    assert Cloze(10, 4, 0, RULES).items(pages[::-1]) == items
    assert Cloze(10, 4, 1, RULES).items(pages) != items


def test_cloze_items_sentence_on_several_pages_is_neither_asked_nor_offered(texts):
    notice = "All rights to this page are reserved by the writers."
    pages = [
        Page("english", str(number), "en", "h", f"c{number}", f"{text} {notice}")
        for number, text in enumerate(texts["english"])
    ]
    items = Cloze(200, 4, 0, RULES).items(pages)
    assert not any(notice in choice for item in items for choice in item.choices)


def test_cloze_items_sentence_asked_on_one_page_but_known_to_others_is_left_out(texts):
    # On the other pages it comes first, where no question can be asked of it.
    notice = "All rights to this page are reserved by the writers."
    middles = [text.split(". ", 3) for text in texts["english"]]
    pages = [
        Page("english", str(number), "en", "h", f"c{number}", ". ".join([*parts[:3], f"{notice} {parts[3]}"]))
        if number == 0
        else Page("english", str(number), "en", "h", f"c{number}", f"{notice} {'. '.join(parts)}")
        for number, parts in enumerate(middles)
    ]
    items = Cloze(200, 4, 0, RULES).items(pages)
    assert not any(notice in choice for item in items for choice in item.choices)


@pytest.mark.parametrize(("dataset", "language"), [("english", "en"), ("japanese", "ja")])
def test_cloze_items_rank_of_the_right_length_gives_nothing_away(texts, dataset, language):
    pages = pages_of(texts, dataset, language)
    ranks = Counter()
    for seed in range(4):
        for item in Cloze(100, 4, seed, RULES).items(pages):
            order = sorted(item.choices, key=lambda choice: (byte_length(choice.strip()), choice.strip()))
            ranks[order.index(item.choices[item.answer])] += 1
    # Two neighbours on either side would give the middle ranks 3/8 each instead of 1/4.
    assert max(ranks.values()) < 0.32 * ranks.total()


def test_cloze_items_of_a_page_that_holds_most_sentences_find_their_distractors(texts):
    long, *others = pages_of(texts, "english", "en")
    long = replace(long, text=" ".join(texts["english"][:-3]))
    items = Cloze(200, 4, 0, RULES).items([long, *others[-3:]])
    asked = [item for item in items if item.cluster == long.cluster]
    assert len(asked) > 50
    assert all(len(item.choices) == 4 for item in items)


def test_cloze_items_too_few_pages_raises(texts):
    with pytest.raises(DataError, match="no cloze question"):
        Cloze(10, 4, 0, RULES).items(pages_of(texts, "english", "en")[:1])


def test_cloze_rows_shortest_nll_per_byte_is_the_output(texts):
    task = Cloze(8, 4, 0, RULES)
    items = task.items(pages_of(texts, "english", "en"))
    rows = task.rows(FixedBackend(), items)
    assert task.measure.chance == 0.25
    for item, row in zip(items, rows, strict=True):
        assert row["output"] == item.choices[0].strip()  # the backend's penalty grows with the position
        assert row["score"] == (item.answer == 0)
        assert row["gold"] == item.choices[item.answer].strip()
    assert sum(row["score"] for row in rows) == 2


def test_generation_items_prompts_end_between_words_or_characters(texts):
    for dataset, language in (("english", "en"), ("japanese", "ja")):
        pages = pages_of(texts, dataset, language)
        items = Generation(3, 90 + PROMPT_BYTES, 0, RULES).items(pages)
        assert len(items) == 3
        for item, page in zip(items, pages, strict=False):
            assert page.text.startswith(item.prompt)
            assert PROMPT_BYTES - 20 < byte_length(item.prompt) <= PROMPT_BYTES
            assert page.text[len(item.prompt)].isspace() == (language == "en")
            assert item.choices[0] == cut_bytes(page.text[len(item.prompt) :], 90 + PROMPT_BYTES)


def test_generation_items_short_pages_are_passed_over(texts):
    short = Page("d", "1", "en", "h", "c", "Too short a page to go on from.")
    task = Generation(3, 200, 0, RULES)
    [item] = task.items([short, pages_of(texts, "english", "en")[0]])
    assert item.cluster == "c0"
    with pytest.raises(DataError, match="none of 1 held-out pages is long enough"):
        task.items([short])


def test_generation_items_tiny_cap_still_has_prompts(texts):
    [item] = Generation(1, 10, 0, RULES).items(pages_of(texts, "japanese", "ja"))
    assert byte_length(item.choices[0]) == 9


def test_generation_rows_flag_empty_answers(texts):
    task = Generation(8, 200, 0, RULES)
    rows = task.rows(FixedBackend(), task.items(pages_of(texts, "english", "en")))
    assert {row["empty"] for row in rows} == {True, False}
    assert all(row["empty"] == (row["output"] != "ok") and row["score"] is None for row in rows)
