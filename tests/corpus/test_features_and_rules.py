"""Every feature equals a plain definition of it, on random and adversarial texts."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import kernels, repetition
from tsugiki.corpus.features import compute_features, feature_types
from tsugiki.corpus.oracle import plain_features
from tsugiki.errors import InputError
from tsugiki.languages import load_pack, pack_codes

JA = load_pack("ja")


EN = load_pack("en")


def share(part, whole):
    return part / whole if whole else 0.0


def plain_swallow(text):
    """Swallow's definitions (corpus.md §1.4), word for word, with empty texts guarded."""
    sentences_of = [re.findall(r"[^。．！？!?]+[。．！？!?]?", line) for line in text.split("\n")]
    paragraphs = ["".join(found) for found in sentences_of]
    sentences = [sentence for found in sentences_of for sentence in found]

    def count(pattern):
        return len(re.findall(pattern, text))

    classes = {
        "hiragana": count("[\u3041-\u3096]"),
        "katakana": count("[\u30a1-\u30fa]"),
        "kanji": count("[々〇〻\u3400-\u9fff\uf900-\ufaff]"),
        "touten": count("[、，]"),
        "kuten": count("[。．！？]"),
    }
    japanese = sum(classes.values())
    features = {
        "letters": len(text),
        "language_letters": japanese,
        "language_share": share(japanese, len(text)),
        "sentence_length_max": max(map(len, sentences), default=0),
        "sentence_length_mean": share(sum(map(len, sentences)), len(sentences)),
        "ellipsis_share": share(
            sum(s.strip()[-1:] in ("・", "…") for s in sentences if s.strip()), len(sentences)
        ),
        **{f"{name}_share": share(number, japanese) for name, number in classes.items()},
    }
    for name, items in (("paragraph", paragraphs), ("sentence", sentences)):
        counts = Counter(items)
        features[f"{name}_duplicates"] = share(sum(f - 1 for f in counts.values()), len(items))
        characters = sum(len(x) * (f - 1) for x, f in counts.items())
        features[f"{name}_duplicate_letters"] = share(characters, sum(map(len, items)))
    for n in range(2, 11):
        grams = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        if n < 5:
            features[f"top_{n}gram"] = share(max(grams.values(), default=0), sum(grams.values()))
        else:
            features[f"repeated_{n}grams"] = share(sum(f > 1 for f in grams.values()), len(grams))
    return features


def plain_gopher(text):
    """Gopher's repetition in datatrove's reading (corpus.md §1.4, definition (c))."""
    words = text.split()
    features = {}
    for n in range(2, 5):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        top, times = grams.most_common(1)[0] if grams else ("", 0)
        features[f"top_word_{n}gram"] = share(len(top) * times, len(text))
    for n in range(5, 11):
        seen, characters, i = set(), 0, 0
        while i + n <= len(words):
            gram = tuple(words[i : i + n])
            if gram in seen:
                characters += sum(map(len, gram))
                i += n
            else:
                seen.add(gram)
                i += 1
        features[f"repeated_word_{n}grams"] = share(characters, len(text))
    return features


def agree(found, expected):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


ADVERSARIAL = [
    "",
    "あ",
    "。",
    "。。。！？",
    "\n\n\n",
    "あ" * 3000,
    "あい" * 1500,
    "同じ文です。" * 200,
    "\n".join(["同じ段落です。"] * 50),
    "・…・…",
    "続く…\n終わり・\n本当。",
    "々〇〻ーｱ㐀鿿豈ヺヷァぁゖ",
    "\U00020000" * 30,
    "abc" * 100 + "日本",
    "a b c\u2028d",
    "あ" * 9 + "い",
]


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_features_of_adversarial_japanese_texts_equal_the_plain_definition(text):
    found = compute_features(text, JA)
    agree(found, plain_swallow(text))
    assert set(found) == set(feature_types(JA))


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="あいアイ日本語。、！？!?・…\n a1々ー", max_size=400))
def test_features_of_random_japanese_texts_equal_the_plain_definition(text):
    agree(compute_features(text, JA), plain_swallow(text))


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.sampled_from(["a", "bb", "the", "the", "of", "x-y", "…"]), max_size=120))
def test_features_of_random_words_equal_the_plain_definition(words):
    text = " ".join(words)
    found = compute_features(text, EN)
    agree(found, plain_gopher(text))
    assert set(found) == set(feature_types(EN))


def test_features_of_english_count_words_lines_and_symbols():
    text = "The cat and the dog sat with me.\n• bullet one\nmore...\n# # 12 --\nLorem ipsum dolor."
    found = compute_features(text, EN)
    assert found["words"] == 8 + 2 + 1 + 1 + 3
    assert found["stop_words"] == 3
    assert found["bullet_line_share"] == pytest.approx(1 / 5)
    assert found["ellipsis_line_share"] == pytest.approx(1 / 5)
    assert found["terminated_line_share"] == pytest.approx(3 / 5)
    assert found["symbol_share"] == pytest.approx(2 / 15)
    assert found["placeholder_texts"] == 1
    assert found["alphabetic_word_share"] == pytest.approx(14 / 19)


def test_features_of_empty_english_text_are_zero():
    assert all(value == 0 for value in compute_features("", EN).values())


def test_features_of_lone_surrogates_are_those_of_any_other_letter():
    found = compute_features("\ud800" * 10, JA)
    assert (found["letters"], found["sentence_length_max"]) == (10, 10)


PIECES = st.sampled_from(
    [
        *(
            "あ",
            "い",
            "日本",
            "。",
            "！",
            "?",
            "...",
            "…",
            "・",
            "\n",
            "\n\n",
            " ",
            "\t",
            "\u3000",
            "#",
            "{",
            "• ",
        ),
        *(
            "セックス",
            "パパ活",
            "fuck",
            "Fuck",
            "JavaScript",
            "lorem ipsum",
            "privacy policy",
            "the ",
            "and ",
        ),
        *(
            "x-y ",
            "[1]",
            "[]",
            "[edit]",
            "[citation needed]",
            "]",
            '"',
            "”",
            "\ud800",
            "\U00020000",
            "e\u0301",
            "हिन्दी",
            "।",
            "là ",
            "İ",
            "ß",
        ),
        *("x" * 40, "\u2028", "a" * 1001, "The cat sat on the mat. "),
    ]
)


@pytest.mark.parametrize("code", pack_codes())
@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECES, max_size=60), times=st.integers(1, 3))
def test_features_equal_the_oracle_on_adversarial_texts(code, pieces, times):
    pack, text = load_pack(code), "".join(pieces) * times
    found = compute_features(text, pack)
    expected = plain_features(text, pack)
    assert set(found) == set(expected) == set(feature_types(pack))
    agree(found, expected)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=300))
def test_features_of_any_text_equal_the_oracle(text):
    for pack in (JA, EN):
        agree(compute_features(text, pack), plain_features(text, pack))


@settings(max_examples=100, deadline=None)
@given(
    symbols=st.lists(st.integers(0, 40), max_size=80), copies=st.integers(1, 3), spread=st.integers(1, 27000)
)
def test_character_repetition_equals_a_counter_for_any_size_of_alphabet(symbols, copies, spread):
    text = np.array(symbols * copies, np.uint32) * np.uint32(spread)
    assert (repetition.character_repetition(text, 10, 10) == kernels.ngram_counts(text, 1, 10)[:, :4]).all()


def test_character_repetition_of_a_large_alphabet_needs_several_keys_a_gram():
    different = np.random.default_rng(1).permutation(70_000).astype(np.uint32)
    text = np.concatenate([different, different[:100], different[50:61]])
    rows = repetition.character_repetition(text, 10, 10)
    assert (rows == kernels.ngram_counts(text, 1, 10)[:, :4]).all()
    assert rows[9].tolist() == [70_102, 70_009, 91, 3]


def test_features_for_c4_judge_lines_without_dropping_them():
    text = (
        "This is a good line. It has two sentences.[1]\nToo short.\nThis line has no end\n"
        "Please enable JavaScript in your browser.\nRead our privacy policy before you go on.\n"
        'He said "go home now."\nAnd then it broke off...\nA {curly} line ends here too.'
    )
    found = compute_features(text, EN)
    assert found["c4_line_share"] == pytest.approx(3 / 8)
    assert found["c4_sentences"] == 2 + 1 + 1
    assert (found["javascript_lines"], found["policy_lines"], found["curly_brackets"]) == (1, 1, 1)


def plain_c4(text, is_open=False):
    """The sentences of the lines that C4 keeps, after c4_utils.py of tensorflow/datasets; marks part them."""
    policy = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    sentences = 0
    for raw in text.split("\n"):
        line = raw.strip()
        if any(len(word) > 1000 for word in line.split()):
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if not is_open and (not line.endswith((".", "?", "!", '"', "'", "”")) or line.endswith(("...", "…"))):
            continue
        if len(line.split()) < 3 or any(phrase in raw.lower() for phrase in ("javascript", *policy)):
            continue
        sentences += len(re.split(r"(?<=[.!?])[\"'”]*\s+", line.strip()))
    return sentences


C4_PIECES = [
    "It is so.",
    " [edit]",
    "[12]",
    "[]",
    "[citation needed]",
    "[citation]",
    "[ edit]",
    " ",
    "\n",
    "one two",
]
C4_PIECES += [
    " three",
    '"',
    "!",
    "...",
    "javascript",
    "Privacy Policy",
    "x" * 1001,
    "[",
    "]",
    "edit",
    "a b c",
]


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.sampled_from(C4_PIECES), max_size=30))
def test_features_for_c4_equal_its_published_code(pieces):
    text = "".join(pieces)
    found = compute_features(text, EN)
    assert (found["c4_sentences"], found["c4_open_sentences"]) == (
        plain_c4(text),
        plain_c4(text, is_open=True),
    )


def test_features_for_c4_take_every_citation_out_of_a_line():
    text = "Rome fell[3] in 476.[citation needed]\nHistory of Rome.[edit]\nSee[1] [2] it.[12][]"
    assert compute_features(text, EN)["c4_sentences"] == 1 + 1  # "See it." has two words
    assert compute_features("It was so.[citation", EN)["c4_sentences"] == 0


def test_features_for_fineweb_follow_its_definitions():
    line = "The very same line stands here twice."
    text = f"{line}\n{line}\nshort one\nAnother line of more than thirty letters"
    found = compute_features(text, EN)
    assert found["terminated_line_share"] == 2 / 4
    assert found["short_line_share"] == 1 / 4
    assert found["repeated_line_letters"] == pytest.approx(len(line) / len(text.replace("\n", "")))
    assert found["line_breaks_per_word"] == pytest.approx(3 / len(text.split()))


@settings(max_examples=100, deadline=None)
@given(symbols=st.lists(st.integers(0, 3), max_size=60), first=st.integers(1, 4), more=st.integers(0, 6))
def test_ngram_counts_equal_a_counter(symbols, first, more):
    counts = kernels.ngram_counts(np.array(symbols, np.uint32), first, first + more)
    for row, n in zip(counts.tolist(), range(first, first + more + 1), strict=True):
        grams = [tuple(symbols[i : i + n]) for i in range(len(symbols) - n + 1)]
        counter = Counter(grams)
        if not counter:
            assert row == [0, 0, 0, 0, 0]
            continue
        top, most = counter.most_common(1)[0]
        repeated = sum(count > 1 for count in counter.values())
        assert row == [len(grams), len(counter), repeated, most, grams.index(top)]


def test_feature_types_reject_a_class_that_takes_another_features_name():
    script = JA.script.model_copy(update={"classes": {"ellipsis": ((1, 2),)}})
    with pytest.raises(InputError, match="ellipsis_share"):
        feature_types(JA.model_copy(update={"script": script}))


def test_feature_types_have_columns_of_lists_only_where_the_pack_has_them():
    assert {"ng_share", "ng_expressions", "dating_names"} <= set(feature_types(JA))
    bare = set(feature_types(JA.model_copy(update={"lists": {}})))
    assert bare == set(feature_types(JA)) - {"ng_share", "ng_expressions", "dating_names"}
    assert "policy_lines" in feature_types(EN)
    assert "dating_names" not in feature_types(EN)
