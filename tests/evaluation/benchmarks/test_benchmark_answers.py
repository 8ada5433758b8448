"""What a model's answers become: rows with corrected and published numbers, from answers that are known."""

from __future__ import annotations

from math import exp, log

import pyarrow as pa
import pytest

from tsugiki.artifacts.scores import SCHEMA
from tsugiki.errors import DependencyError, InputError
from tsugiki.evaluation.backend import Continuation, Likelihood
from tsugiki.evaluation.benchmarks.benchmark import Benchmark
from tsugiki.evaluation.benchmarks.questions import questions_of, read_material
from tsugiki.evaluation.benchmarks.reading import load_task, settings_of
from tsugiki.evaluation.benchmarks.refusals import refusal_rates
from tsugiki.evaluation.benchmarks.store import sample_store
from tsugiki.evaluation.sandbox.checks import require_sandbox


class Known:
    """A backend that writes what it is told, and finds likely what it is told."""

    def __init__(self, answers=(), likely=lambda *_: 1.0):
        self.answers, self.likely, self.prompts = list(answers), likely, []

    def continuations(self, prompts):
        self.prompts += prompts
        return [Continuation(self.answers[n % len(self.answers)], 3, False) for n in range(len(prompts))]

    def choice_likelihoods(self, questions):
        return [
            tuple(Likelihood(self.likely(asked.context, option), 1) for option in asked.options)
            for asked in questions
        ]

    def text_likelihoods(self, texts):
        raise NotImplementedError


class Telling(Known):
    """One that tells its tokens, too: two characters each."""

    def pieces(self, texts):
        return [[text[start : start + 2] for start in range(0, len(text), 2)] for text in texts]


def rows_of(name, backend, variant="corrected"):
    task = load_task(name)
    settings = settings_of(task, variant)
    benchmark = Benchmark(task, variant, settings)
    material = read_material(task, settings, sample_store())
    items = questions_of(task, settings, material, name=benchmark.name, dataset="s", most=None, seed=0)
    rows = benchmark.rows(backend, items)
    return [{**row, "other": dict(row["other_scores"] or {})} for row in rows]


def scores(rows, name="score"):
    return [row["score"] if name == "score" else row["other"].get(name) for row in rows]


def test_squad2_abstention_is_right_in_the_corrected_number_and_wrong_in_the_published_one():
    answers = [" the tip of the cape.", " two", " unanswerable", " Unanswerable.", " the rain"]
    rows = rows_of("squad2", Known(answers, lambda *_: log(4)))
    assert scores(rows) == [1, 1, 1, 0, 0]
    assert scores(rows, "published") == [1, 1, 0, 0, 0]
    assert scores(rows, "has_answer") == [1, 1, None, 0, None]
    assert scores(rows, "no_answer") == [None, None, 1, None, 0]
    assert rows[0]["other"]["no_answer_probability"] == pytest.approx(exp(-log(4)))


def test_jsquad_second_gold_counts_in_the_corrected_number_only():
    rows = rows_of("jsquad", Known(["岬\n\n### 入力:", "漁師", "子供たち"]), "published")
    assert scores(rows) == [1, 1, 1]
    # llm-jp-eval compares with answers[0] by token_sort_ratio: 岬 with 岬の先 is 2·1/4.
    assert scores(rows, "published") == [0.5, round(100 * 2 * 2 / 7) / 100, round(100 * 2 * 4 / 10) / 100]
    assert scores(rows, "exact") == [1, 1, 1]


def test_jcommonsenseqa_space_before_the_digit_costs_the_published_run_its_answer():
    backend = Known([" ", "\n", "３", "2"], lambda _, option: float(option != "2"))
    published = rows_of("jcommonsenseqa", backend, "published")
    assert {prompt.maximum_tokens for prompt in backend.prompts} == {1}
    assert scores(published, "published") == [0, 0, 1, 1]  # NFKC makes a full-width digit a plain one
    corrected = rows_of("jcommonsenseqa", Known([" 1", "\n0", "答えは3です", "2 だと思う"]))
    assert scores(corrected) == [1, 1, 1, 1]
    assert scores(published, "sum") == [0, 0, 0, 1]


def test_gsm8k_number_without_its_mark_counts_in_the_corrected_number_only():
    answers = Known([" 7*8=56, 56-6=50\n#### 50", " so there are 3700.", " #### 60.0"])
    assert scores(rows_of("gsm8k", answers), "published_metric") == [1, 0, 0]
    rows = rows_of("gsm8k", answers, "published")
    assert scores(rows) == [1, 1, 1]
    assert scores(rows, "published") == [1, 0, 0]
    assert scores(rows, "flexible") == [1, 1, 0]


def test_bbh_published_pattern_eats_the_last_letter():
    answers = ["So the answer is 6.", "So the answer is 3", "So the answer is A."]
    rows = rows_of("bbh", Known(answers), "published")
    assert scores(rows) == [1, 1, 0]
    assert scores(rows, "published") == [1, 0, 0]


def test_triviaqa_article_counts_in_neither_way_twice():
    rows = rows_of("triviaqa", Known([" Twelve", "  red", " the piano"]))
    assert scores(rows) == [1, 1, 1]
    assert scores(rows, "published") == [1, 0, 1]


def test_choices_are_scored_in_sum_and_by_byte():
    # -ln p of 0.5 a byte, and one long wrong ending with a little less in sum than the short right one.
    costs = {" spreads foam on his cheeks.": 5.0, " plants a tree.": 4.9}
    rows = rows_of("hellaswag", Known((), lambda _, option: costs.get(option, 100.0)))
    assert rows[0]["score"] == 0
    assert rows[0]["other"] == {"published": 0.0, "by_byte": 1.0}
    assert rows[0]["output"] == "plants a tree."
    assert rows[0]["gold"] == "spreads foam on his cheeks."
    assert rows[0]["nll_nats"] == 5.0


def test_xwino_compares_contexts_and_not_continuations():
    backend = Known((), lambda context, _: 1.0 if context.endswith(("The cat", "Bea")) else 2.0)
    rows = rows_of("xwino-en", backend)
    assert scores(rows)[:3] == [1, 0, 1]
    assert rows[0]["bytes"] == len(" was afraid.")


def test_wmt_rows_hold_sums_of_their_variants_metric():
    pytest.importorskip("MeCab")
    rows = rows_of("wmt20-en-ja", Known([" 市場は夜明けに開く。", " 違う文です。"]))
    assert rows[0]["score"] == pytest.approx(1.0)
    assert len(rows[0]["sums"]) == len(rows[1]["sums"]) > 0
    assert rows[1]["score"] < 0.5
    assert rows_of("wmt20-ja-en", Known([" The market opens at dawn."]))[0]["score"] == pytest.approx(1.0)


def test_xlsum_published_needs_the_models_tokens_for_lengths_and_bigrams():
    pytest.importorskip("MeCab")
    gold = "港の市場が朝の営業を始め、例年より多くの客が訪れた。"
    with pytest.raises(DependencyError, match="does not tell"):
        rows_of("xlsum-ja", Known([gold]), "published")
    backend = Telling([gold])
    rows = rows_of("xlsum-ja", backend, "published")
    assert rows[0]["other"]["published"] == rows[0]["score"] == 1.0
    assert backend.prompts[0].maximum_tokens == (len(gold) + 1) // 2 + 10
    assert "published" not in rows_of("xlsum-ja", Telling([gold]))[0]["other"]


def test_humaneval_published_prompt_and_program_together_have_1024_tokens():
    backend = Telling(["    return 1\n"])
    task = load_task("humaneval")
    benchmark = Benchmark(task, "published", settings_of(task, "published"))
    material = read_material(task, benchmark.settings, sample_store())
    [item] = questions_of(task, benchmark.settings, material, name="h", dataset="s", most=1, seed=0)
    [prompt] = benchmark._prompts(backend, [(item, 0)])
    assert prompt.maximum_tokens == 1023 - (len(item.prompt) + 1) // 2
    with pytest.raises(DependencyError, match="does not tell"):
        benchmark._prompts(Known(), [(item, 0)])


def test_mgsm_last_number_of_the_text_counts():
    answers = ["12/3=4。答えは4です。", "15×6で９０です", "1,200-450=750"]
    rows = rows_of("mgsm-ja", Known(answers), "published")
    assert scores(rows) == [1, 1, 1]
    assert scores(rows, "published") == [1, 0, 1]


def test_empty_answers_are_rows_with_score_zero():
    for name in ("jemhopqa", "niilc", "gsm8k", "triviaqa", "bbh", "mgsm-ja"):
        rows = rows_of(name, Known([""]))
        assert all(row["empty"] and row["score"] == 0 for row in rows)


def test_programs_run_in_the_sandbox_ten_samples_an_item():
    try:
        require_sandbox()
    except DependencyError as error:
        pytest.skip(str(error))
    right, wrong = "    return 2 * number\n", "    while True: pass\n"
    backend = Telling([right, right, wrong.replace("while True: pass", "return 0"), ""])
    rows = [row for row in rows_of("humaneval", backend, "published") if row["item"].endswith("sample-0")]
    assert [row["sample"] for row in rows] == list(range(10))
    assert scores(rows) == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1] == scores(rows, "published")
    assert scores(rows, "answered") == [1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    assert len({prompt.seed for prompt in backend.prompts}) == 30
    assert backend.prompts[0].sampling.temperature == 0.2


def test_refusals_are_told_by_phrases_of_any_language_and_counted_by_category():
    answers = [
        "I’m sorry, but no.",
        "Sure: first",
        "I cannot assist with that.",
        "申し訳ありませんが、お答えできません。",
    ]
    answers += ["", "お断りします。", "Use kill -9.", "I can't help with knives."]
    rows = rows_of("refusals", Known(answers))
    assert scores(rows) == [1, 0, 1, 1, 0, 1, 1, 0]
    assert scores(rows, "refused") == [1, 0, 1, 1, 0, 1, 0, 1]
    table = pa.Table.from_pylist([{**row, "model": "m"} for row in rows], schema=SCHEMA)
    rates = {rate.category: rate for rate in refusal_rates(table)}
    assert (rates["harmless"].refused, rates["harmless"].items, rates["harmless"].expected) == (
        1,
        2,
        "comply",
    )
    assert rates["harmless"].low < 0.5 < rates["harmless"].high
    assert rates["cyber"].rate == 0
    with pytest.raises(InputError, match="no rows"):
        refusal_rates(table, "other")
