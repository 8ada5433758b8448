"""BLEU, chrF and ROUGE from sums over items, against sacreBLEU and rouge_score."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer, scoring

from tsugiki.errors import DataError, DependencyError, InputError
from tsugiki.evaluation.metrics import bleu, rouge, tokenizers
from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

WORDS = tuple(
    "the cat sat on mat , a dog ran . don't hello-world 3.5 (x) 「 猫 が 走る 」 東京タワー 犬。".split()  # noqa: SIM905
)
LINE = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
CORPUS = st.lists(st.tuples(LINE, st.lists(LINE, min_size=2, max_size=2)), min_size=1, max_size=6)
ORACLES = {
    "bleu": lambda h, r: sacrebleu.corpus_bleu(h, r).score,
    "bleu-ja-mecab": lambda h, r: sacrebleu.corpus_bleu(h, r, tokenize="ja-mecab").score,
    "chrf": lambda h, r: sacrebleu.corpus_chrf(h, r).score,
    "chrf++": lambda h, r: sacrebleu.corpus_chrf(h, r, word_order=2).score,
}


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=60)
@given(corpus=CORPUS)
def test_corpus_metric_of_added_sums_equals_sacrebleu(name, corpus):
    metric = CORPUS_METRICS[name]
    total = np.sum([metric.sums(text, references) for text, references in corpus], axis=0)
    texts = [text for text, _ in corpus]
    streams = [[references[i] for _, references in corpus] for i in range(2)]
    assert 100 * float(metric.value(total)) == pytest.approx(ORACLES[name](texts, streams), abs=1e-9)


@settings(max_examples=60)
@given(LINE, LINE)
def test_item_value_equals_sacrebleu_for_one_sentence(text, reference):
    metric = CORPUS_METRICS["bleu"]
    expected = sacrebleu.sentence_bleu(text, [reference], use_effective_order=True).score
    assert 100 * metric.item_value(metric.sums(text, [reference])) == pytest.approx(expected, abs=1e-9)
    assert 100 * bleu.sentence(text, [reference]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CORPUS_METRICS)
def test_value_of_many_draws_at_once_equals_one_by_one(name):
    metric = CORPUS_METRICS[name]
    generator = np.random.default_rng(0)
    totals = generator.integers(0, 30, size=(4, 5, metric.width)).astype(float)
    together = metric.value(totals)
    assert together.shape == (4, 5)
    alone = np.array([[float(metric.value(totals[i, j])) for j in range(5)] for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_ratio_and_bits_of_sums_worked_by_hand():
    assert CORPUS_METRICS["ratio"].value([[3, 4], [0, 2]]).tolist() == [0.75, 0.0]
    assert np.isnan(CORPUS_METRICS["ratio"].value([0, 0]))
    bits = CORPUS_METRICS["bits-per-byte"]
    assert float(bits.value([8 * np.log(2), 4])) == pytest.approx(2)
    assert bits.lower_is_better
    assert not CORPUS_METRICS["bleu"].lower_is_better


def test_corpus_metric_refuses_no_reference_wrong_width_and_texts_for_bits():
    with pytest.raises(DataError, match="no reference"):
        CORPUS_METRICS["bleu"].sums("a", [])
    with pytest.raises(DataError, match="10 sums"):
        CORPUS_METRICS["bleu"].value([1.0, 2.0])
    with pytest.raises(DataError, match="not computed from texts"):
        CORPUS_METRICS["bits-per-byte"].sums("a", ["a"])


def test_nothing_matching_gives_zero_and_equal_texts_give_one():
    for name in ORACLES:
        metric = CORPUS_METRICS[name]
        assert float(metric.value(metric.sums("完全に違う", ["nothing alike here at all"]))) == 0.0
        same = "the quick brown fox jumps over it"
        assert float(metric.value(metric.sums(same, [same]))) == pytest.approx(1.0)
        assert float(metric.value(metric.sums("", ["x"]))) == 0.0


# --- tokenizers ----------------------------------------------------------------------------------------


def test_tokenizers_cut_as_their_names_say():
    assert tokenizers.tokenizer("words")("Don't STOP, 東京 2!") == ["don", "t", "stop", "2"]
    assert tokenizers.tokenizer("characters")("Ａ b\u3000東京") == ["a", "b", "東", "京"]
    assert tokenizers.tokenizer("13a")("Hello, world.") == ["Hello", ",", "world", "."]
    assert tokenizers.tokenizer("ja-mecab")("今日は良い天気です。") == [
        "今日",
        "は",
        "良い",
        "天気",
        "です",
        "。",
    ]
    with pytest.raises(InputError, match='no tokenizer "mecab"'):
        tokenizers.tokenizer("mecab")


@pytest.mark.parametrize(
    ("name", "package", "cached"), [("nagisa", "nagisa", "_nagisa"), ("ja-mecab", "MeCab", "_ja_mecab")]
)
def test_missing_segmenter_names_the_extra(monkeypatch, name, package, cached):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    getattr(tokenizers, cached).cache_clear()
    with pytest.raises(DependencyError, match=r"tsugiki\[(nagisa|japanese)\]"):
        tokenizers.tokenizer(name)("東京")
    getattr(tokenizers, cached).cache_clear()


def test_bleu_nagisa_scores_words_with_spaces_between(monkeypatch):
    # The package is large; where it is missing, its rule of joining is checked with another cut.
    monkeypatch.setitem(tokenizers.TOKENIZERS, "nagisa", tokenizers.characters)
    metric = CORPUS_METRICS["bleu-nagisa"]
    found = metric.sums("今日は雨。", ["今日は雪。"])
    assert found == CORPUS_METRICS["bleu"].sums("今 日 は 雨 。", ["今 日 は 雪 。"])
    assert found[0] == 5


def test_nagisa_itself_cuts_words():
    pytest.importorskip("nagisa", reason="the extra nagisa is not installed")
    assert tokenizers.tokenizer("nagisa")("今日は良い天気です。") == [
        "今日",
        "は",
        "良い",
        "天気",
        "です",
        "。",
    ]


# --- ROUGE ---------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(LINE, LINE, st.integers(1, 3))
def test_rouge_n_equals_rouge_score(text, reference, order):
    expected = rouge_scorer.RougeScorer([f"rouge{order}"]).score(reference, text)[f"rouge{order}"].fmeasure
    assert rouge.rouge_n(text, [reference], order=order) == pytest.approx(expected)


class _Segmenter:
    def tokenize(self, text):
        return tokenizers.ja_mecab(text)


@settings(max_examples=30)
@given(LINE, LINE)
def test_rouge_2_with_mecab_equals_rouge_score_with_that_tokenizer(text, reference):
    scorer = rouge_scorer.RougeScorer(["rouge2"], tokenizer=_Segmenter())
    expected = scorer.score(reference, text)["rouge2"].fmeasure
    assert rouge.rouge_2(text, [reference], tokenize=tokenizers.ja_mecab) == pytest.approx(expected)


def test_rouge_2_takes_the_best_reference_and_depends_on_the_tokenizer():
    assert rouge.rouge_2("a b c", ["x y", "a b"]) == pytest.approx(2 / 3)
    text, gold = "東京は晴れ", ["東京は雨"]
    assert rouge.rouge_2(text, gold) == 0.0  # no Latin words: why the default is wrong for Japanese
    by_character = rouge.rouge_2(text, gold, tokenize=tokenizers.characters)
    assert by_character == pytest.approx(4 / 7)  # 東京, 京は in common of 4 + 3 pairs
    assert rouge.rouge_2(text, gold, tokenize=tokenizers.ja_mecab) != by_character


def test_bootstrap_mid_equals_rouge_scores_aggregator():
    generator = random.Random(0)
    scores = [generator.random() for _ in range(50)]
    aggregator = scoring.BootstrapAggregator()
    for score in scores:
        aggregator.add_scores({"rouge2": scoring.Score(score, score, score)})
    np.random.seed(1234)  # noqa: NPY002
    expected = aggregator.aggregate()["rouge2"].mid.fmeasure
    assert rouge.bootstrap_mid(scores, seed=1234) == pytest.approx(expected, abs=1e-12)
    assert abs(rouge.bootstrap_mid(scores) - np.mean(scores)) < 0.01
    with pytest.raises(DataError, match="over no scores"):
        rouge.bootstrap_mid([])
