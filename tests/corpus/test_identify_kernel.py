"""The compiled identifier against the library that it is compiled from."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier, visit_counts

from tsugiki.corpus.identify import compiled, identify, library, sample_of
from tsugiki.corpus.identify_kernel import tables_of
from tsugiki.languages import load_pack

LABELS = ("ja", "sr", "uz")  # two labels that stand in the model twice
FRAGMENTS = [
    "設定",
    "を",
    "the ",
    "THE ",
    "и ",
    "한글",
    "\n",
    "é",
    "e\u0301",
    "ß",
    "\0",
    "\ud800",
    "🐍",
    "　",
    "a" * 50,
    "1",
]


@pytest.fixture(scope="module")
def model():
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@pytest.fixture(scope="module")
def tables(model):
    return tables_of(model)


def defined(model, text):
    """Probabilities by the library's model in double precision: what both should give."""
    packed = model._encode(text)
    visits = visit_counts(model.tk_nextmove, model._rowbase, model.tk_output, packed)
    scores = np.zeros(len(model.nb_classes))
    if visits:
        counts = np.array(list(visits.values()), np.float64)
        scores = np.log1p(counts) @ model.nb_ptc[list(visits)].astype(np.float64) + model.nb_pc
    scores = scores / math.sqrt(len(packed) or 1)
    scores = np.exp(scores - scores.max())
    scores /= scores.sum()
    for first, second in model._alias_pairs:
        scores[first] += scores[second]
        scores[second] = 0.0
    return scores


def agree(model, tables, text):
    ours = tables.probabilities(text)
    theirs = model._decide(text)
    np.testing.assert_allclose(ours, defined(model, text), rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)  # the library adds up in 32 bits
    if np.sort(theirs)[-1] - np.sort(theirs)[-2] > 1e-4:
        assert tables.labels[ours.argmax()] == model.classify(text)[0]


def test_tables_equal_the_library_on_real_text(model, tables, japanese, english):
    for seed in range(20):
        for text in (japanese(seed), english(seed), japanese(seed) + english(seed), english(seed).upper()):
            agree(model, tables, text)


@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 7, 63, 255, 256, 257, 258, 259, 260, 1023, 4999])
def test_tables_equal_the_library_at_every_split_of_the_chains(model, tables, length, japanese, english):
    mixed = (english(1) + japanese(1) * 3 + english(2) * 3)[:length]
    agree(model, tables, mixed)
    agree(model, tables, ("abc " * 2000)[:length])  # counts above the groups


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(max_size=400)
    | st.lists(st.sampled_from(FRAGMENTS), max_size=150).map("".join)
    | st.text(alphabet=st.characters(min_codepoint=0x3040, max_codepoint=0x9FFF), min_size=100, max_size=300)
)
def test_tables_equal_the_library_on_any_text(model, tables, text):
    agree(model, tables, text)


def test_compiled_and_library_give_the_same_answer(model, japanese, english):
    fast, slow = compiled(model), library(model)
    for text in (japanese(1), english(1), "Zdravo svete, kako ste danas?", "", "123"):
        ours, theirs = fast(text, LABELS), slow(text, LABELS)
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)
        assert 0 <= ours.score <= 1
        if text.strip("123"):
            assert ours.label == theirs.label


class Changed:
    """The model, with one thing that another version of the library might do otherwise."""

    def __init__(self, model, **changes):
        self._model = model
        self._changes = changes

    def __getattr__(self, name):
        if name in self._changes:
            change = self._changes[name]
            if isinstance(change, Exception):
                raise change
            return change
        return getattr(self._model, name)


@pytest.mark.parametrize(
    "name", ["nb_ptc", "nb_pc", "tk_nextmove", "tk_row", "tk_output", "nb_classes", "_alias_pairs"]
)
def test_a_library_without_the_expected_tables_is_used_as_it_is(model, name):
    changed = Changed(model, **{name: AttributeError(name)})
    assert tables_of(changed) is None
    assert compiled(changed) is None


def test_a_library_with_other_weights_or_answers_is_used_as_it_is(model):
    floats = model.nb_ptc[:8].astype(np.float32)
    endless = model.nb_ptc[:8].copy()
    endless[0, 0] = np.inf
    fine = model.nb_ptc[:8].copy()
    fine[0, 0] = np.float16(1e-4)  # no whole number of the scale
    for weights in (floats, endless, fine):
        assert tables_of(Changed(model, nb_ptc=weights)) is None
    assert tables_of(Changed(model, rank=lambda _: [("ja", 0.5)])) is None
    assert tables_of(Changed(model, nb_pc=np.zeros(3, np.float32))) is None


def test_sample_of_a_long_text_is_its_beginning_middle_and_end():
    text = "a" * 4000 + "b" * 4000 + "c" * 4000
    sample = sample_of(text)
    assert sample == "\n".join(letter * 1600 for letter in "abc")
    assert sample_of(text[:4800]) == text[:4800]


def test_identify_adds_up_the_labels_of_a_pack(japanese):
    pack = load_pack("ja")
    both = pack.identification.model_copy(update={"labels": ("ja", "en", "nowhere")})
    text = "日本語の文章です。\nThis is an English sentence about nothing."
    one = identify(text, pack).score
    english = identify(text, load_pack("en")).score
    assert identify(text, pack.model_copy(update={"identification": both})).score == pytest.approx(
        one + english
    )
