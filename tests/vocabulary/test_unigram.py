"""Unigram tokenizers: models trained here by SentencePiece, as LLM-jp, transformers and T5 lay them out."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import sentencepiece
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.commands.vocabulary_measure import measure
from tsugiki.errors import DataError, InputError
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model, vocabulary_size
from tsugiki.models.sentencepiece_file import PieceType, read_sentencepiece
from tsugiki.models.spelling import TokenizerKind
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer
from tsugiki.vocabulary.extend import (
    check_extendable,
    choose_pieces,
    extend_tokenizer,
    find_candidates,
    read_corpus,
    unreachable_pieces,
)
from tsugiki.vocabulary.initialising import base_frequencies
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.pieces import script_of
from tsugiki.vocabulary.sentencepiece_ids import Ties

LIMITS = Limits(wanted=120, minimum_count=2, maximum_characters=8, ascii=False)
JAPANESE = "".join(dict.fromkeys("昨日の夕方、先生は東京の郊外で新しい言葉について本を書いた。🌸庭師"))
MIXED = st.text(st.sampled_from(f"{JAPANESE} theab12\n\t▁é한"), max_size=40)
UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0▁"), max_size=40)
TEXTS = st.one_of(UNICODE, MIXED)


def train(texts: list[str], *, byte_fallback: bool = True) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=420,
        hard_vocab_limit=False,
        model_type="unigram",
        byte_fallback=byte_fallback,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    return written.getvalue()


def lay_out(model: bytes, layout: str) -> Tokenizer:
    """tokenizer.json of a model: LLM-jp's (no pre-tokenizer), Llama's newer (Metaspace), T5's (no bytes)."""
    vocabulary = [(piece.text, piece.score) for piece in read_sentencepiece(model).pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=layout != "t5"))
    strip = decoders.Strip(content=" ", left=1)
    fuse = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    tokenizer.decoder = decoders.Sequence(fuse)
    if layout == "llm-jp":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif layout == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    # Read as from a file: `tokenizers` rounds a score's last bit when it reads it, once and no more.
    return Tokenizer.from_str(tokenizer.to_str())


@pytest.fixture(scope="module")
def texts(corpora):
    return {
        language: [row["text"] for row in iterate_documents(corpora[language], split="train")]
        for language in corpora
    }


@pytest.fixture(scope="module")
def make_base(texts):
    """English with a little Japanese, as a base that has many kana but few words."""
    trained = {
        fallback: train([*texts["english"], *texts["japanese"][:1]], byte_fallback=fallback)
        for fallback in (True, False)
    }

    def make(layout: str) -> TextTokenizer:
        model = trained[layout != "t5"]
        files = {} if layout == "t5" else {"tokenizer.model": model}
        return TextTokenizer(lay_out(model, layout), 1, 2, files)

    return make


@pytest.fixture(scope="module", params=["llm-jp", "metaspace", "t5"])
def base(request, make_base):
    return make_base(request.param)


@pytest.fixture(scope="module", params=["continued", "append"])
def extension(request, base, texts):
    return extend_tokenizer(base, read_corpus(base, texts["japanese"]), LIMITS, method=request.param)


@pytest.fixture(scope="module")
def anew(make_base, texts):
    """An extension with all scores estimated anew."""
    base = make_base("metaspace")
    return extend_tokenizer(base, read_corpus(base, texts["japanese"]), LIMITS, scores="re-estimate")


@pytest.fixture(scope="module")
def base_model(make_base, tmp_path_factory):
    """A Llama with a Unigram tokenizer, an added token that tokenizer.model lacks, and padding rows."""
    made = make_base("metaspace")
    made.tokenizer.add_special_tokens([AddedToken("<pad>", special=True)])
    tokenizer = TextTokenizer(made.tokenizer, 1, 2, made.side_files)
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=tokenizer.size + 3))
    initialise(decoder, 3)
    directory = tmp_path_factory.mktemp("unigram-base")
    save_model(decoder, tokenizer, directory)
    return directory


def encode(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode_batch([text])[0].tolist()


def processor(tokenizer: TextTokenizer) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.side_files["tokenizer.model"])


def new_pieces(extension) -> tuple[str, ...]:
    return extension.tokenizer.pieces[extension.base_size :]


def test_extension_has_exactly_the_wanted_pieces_after_the_old_ones(extension, base):
    assert base.kind is TokenizerKind.UNIGRAM
    assert extension.added == LIMITS.wanted
    assert extension.tokenizer.pieces[: base.size] == base.pieces
    assert len(set(extension.tokenizer.pieces)) == base.size + LIMITS.wanted


def test_old_scores_keep_their_bits_and_new_ones_lie_between_them(extension, base):
    before, after = (
        json.loads(one.tokenizer.to_str())["model"]["vocab"] for one in (base, extension.tokenizer)
    )
    assert after[: base.size] == before
    old = [score for _, score in before if score < 0]
    new = [score for _, score in after[base.size :]]
    assert min(old) <= min(new) < max(new) <= max(old)


def test_every_new_piece_wins_its_own_text(extension, base):
    assert unreachable_pieces(extension.tokenizer, extension.base_size) == []
    for number, piece in enumerate(new_pieces(extension), start=extension.base_size):
        # A letter of another script is no part of a new piece; behind it a text is cut as if it stood alone.
        text = piece.replace("▁", " ") if piece.startswith("▁") else f"x{piece}"
        assert encode(extension.tokenizer, text)[-1] == number


def test_new_pieces_keep_the_rules(extension):
    pieces = new_pieces(extension)
    assert any(len(piece) > 3 for piece in pieces)
    for piece in pieces:
        assert len(piece) <= LIMITS.maximum_characters
        assert not piece.isascii()
        assert "▁" not in piece[1:]
        assert len({script_of(one) for one in piece.lstrip("▁")} - {""}) <= 1


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
@example(text="The gardener looks at the tree")
def test_text_that_uses_no_new_piece_keeps_its_ids(extension, base, text):
    ids = encode(extension.tokenizer, text)
    assume(max(ids, default=0) < extension.base_size)
    assert ids == encode(base, text)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
@example(text="春になると、</s>庭師は🌸を\r\n  ")
@example(text="<unk> <s>")
def test_any_text_comes_back_as_its_normalised_form(extension, base, text):
    ids = encode(extension.tokenizer, text)
    assert not {1, 2} & set(ids)
    back = extension.tokenizer.decode(ids)
    if base.unknown_id not in ids:
        assert back in {base.normalised(text), base.decode(encode(base, text))}


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
@pytest.mark.parametrize("layout", ["llm-jp", "metaspace"])
def test_tokenizer_model_gives_the_ids_of_tokenizer_json(peers, layout, text):
    base, extended, old, new = peers[layout]
    assume(encode(base, text) == old.encode(text))  # a text that spells a byte piece, <0x41>, is read as one
    assert encode(extended, text) == new.encode(text)


@pytest.fixture(scope="module")
def peers(make_base, texts):
    found = {}
    for layout in ("llm-jp", "metaspace"):
        base = make_base(layout)
        extended = extend_tokenizer(base, read_corpus(base, texts["japanese"]), LIMITS).tokenizer
        found[layout] = (base, extended, processor(base), processor(extended))
    return found


def test_tokenizer_model_gives_the_ids_of_tokenizer_json_on_the_corpus(peers, anew, texts):
    pairs = [(extended, new) for _, extended, _, new in peers.values()]
    pairs.append((anew.tokenizer, processor(anew.tokenizer)))
    for extended, peer in pairs:
        assert tuple(peer.id_to_piece(number) for number in range(peer.get_piece_size())) == extended.pieces
        for text in (*texts["japanese"], *texts["english"]):
            assert encode(extended, text) == peer.encode(text)


def test_new_pieces_shorten_japanese_and_leave_english_alone(extension, base, texts):
    count = {
        (language, place): sum(map(len, tokenizer.encode_batch(texts[language])))
        for language in texts
        for place, tokenizer in enumerate((base, extension.tokenizer))
    }
    assert count["english", 0] == count["english", 1]
    assert count["japanese", 1] < 0.5 * count["japanese", 0] or base.unknown_id is not None


def test_objective_rises_with_the_epochs(extension, anew):
    for facts in (extension.facts, anew.facts):
        assert len(facts["objective"]) == 3
        assert all(after >= before for before, after in pairwise(facts["objective"]))
    assert (extension.keeps_ids, anew.keeps_ids) == (True, False)


def test_estimating_anew_changes_scores_of_pieces_of_text_alone(anew, make_base):
    base = make_base("metaspace")
    old, new = (
        read_sentencepiece(one.side_files["tokenizer.model"]).pieces for one in (base, anew.tokenizer)
    )
    for before, after in zip(old, new, strict=False):
        assert (before.text, before.type) == (after.text, after.type)
        if before.type is not PieceType.NORMAL:
            assert before.score == after.score
    assert sum(before.score != after.score for before, after in zip(old, new, strict=False)) > 50
    vocabulary = json.loads(anew.tokenizer.tokenizer.to_str())["model"]["vocab"]
    assert [score for _, score in vocabulary] == [piece.score for piece in new]
    assert unreachable_pieces(anew.tokenizer, anew.base_size) == []


def test_components_are_the_bases_encoding_of_each_piece(make_base, texts):
    base = make_base("llm-jp")
    extension = extend_tokenizer(base, read_corpus(base, texts["japanese"]), LIMITS)
    for piece, components in zip(new_pieces(extension), extension.components, strict=True):
        content = b"".join(base.contents[number] for number in components)
        assert content.decode() == piece.replace("▁", " ")


def test_frequencies_are_those_of_the_bases_own_encoding(make_base, texts):
    base = make_base("llm-jp")
    lines = [line for text in texts["japanese"][:9] for line in text.splitlines()]
    found = base_frequencies(base, read_corpus(base, lines))
    ids = [number for line in lines for number in encode(base, line)]
    assert [int(found[number]) for number in range(base.size)] == [
        ids.count(number) for number in range(base.size)
    ]


@pytest.mark.parametrize("method", ["continued", "append"])
def test_extending_is_the_same_whatever_the_order_of_documents(base, texts, method):
    shuffled = random.Random(0).sample(texts["japanese"], len(texts["japanese"]))
    one, two = (
        extend_tokenizer(base, read_corpus(base, iter(order)), LIMITS, method=method)
        for order in (texts["japanese"], shuffled)
    )
    assert one.tokenizer.to_json() == two.tokenizer.to_json()
    assert one.tokenizer.side_files == two.tokenizer.side_files


def test_pieces_stay_within_the_words_of_a_segmenter(make_base):
    base = make_base("metaspace")
    cut = lambda text: range(0, len(text), 2)  # noqa: E731 - a segmenter that cuts every two characters
    words = read_corpus(base, ["庭師先生庭師学生"] * 9 + ["先生庭師"] * 9, cut=cut)
    assert max(map(len, words.words)) == 2
    assert sum(map(len, words.lines)) == len("▁庭師先生庭師学生▁先生庭師")
    extension = extend_tokenizer(base, words, LIMITS._replace(wanted=4))
    assert max(map(len, new_pieces(extension))) == 2


def test_digits_stay_apart_where_the_base_splits_them(make_base):
    base = make_base("metaspace")
    words = read_corpus(base, ["二〇２０２０年に", "二〇２０２１年に"] * 9)
    pieces = new_pieces(extend_tokenizer(base, words, LIMITS._replace(wanted=2)))
    assert all("２" not in piece for piece in pieces)


def test_smaller_sizes_take_the_first_of_the_larger_ones(make_base, texts):
    base = make_base("metaspace")
    candidates = find_candidates(base, read_corpus(base, texts["japanese"]), LIMITS, "continued")
    large, small = (
        set(new_pieces(choose_pieces(base, candidates, LIMITS._replace(wanted=wanted))))
        for wanted in (120, 15)
    )
    assert small < large


def test_too_little_text_is_an_error_that_says_how_many_there_are(make_base):
    base = make_base("metaspace")
    with pytest.raises(DataError, match="3000 are wanted"):
        extend_tokenizer(base, read_corpus(base, ["庭師は先生"] * 3), LIMITS._replace(wanted=3000))
    with pytest.raises(DataError, match="no text to learn"):
        read_corpus(base, ["\n"])


def test_tokenizer_model_of_another_tokenizer_is_refused(make_base, texts):
    base = make_base("metaspace")
    words = read_corpus(base, texts["japanese"])
    other = TextTokenizer(base.tokenizer, 1, 2, {"tokenizer.model": train(texts["japanese"][:20])})
    with pytest.raises(InputError, match="in tokenizer.model and .* in tokenizer.json"):
        extend_tokenizer(other, words, LIMITS)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts["english"]),
        model_writer=written,
        vocab_size=99,
        model_type="bpe",
        minloglevel=2,
    )
    other = TextTokenizer(base.tokenizer, 1, 2, {"tokenizer.model": written.getvalue()})
    with pytest.raises(InputError, match="tokenizer.model is BPE"):
        extend_tokenizer(other, words, LIMITS)


def _unigram(*, unk_id=0, scores=(0.0, -1.0), decoder=None):
    tokenizer = Tokenizer(models.Unigram([("<unk>", scores[0]), ("a", scores[1])], unk_id=unk_id))
    if decoder is not None:
        tokenizer.decoder = decoder
    return TextTokenizer(tokenizer, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unk_id": None}, "no piece for unknown characters"),
        ({"scores": (0.0, 0.0)}, "no piece with a score below 0"),
        ({"decoder": decoders.ByteLevel()}, "over bytes"),
    ],
)
def test_other_unigram_tokenizers_are_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        check_extendable(_unigram(**options))
    assert "SentencePiece" in caught.value.hint


def test_ties_are_what_scores_the_same_and_nothing_else():
    ties = Ties((-2.0, -2.0 - 1e-9, -3.0, -1.0), (1, 2, 3, 1))
    assert ties.holds([0, 1], [1, 0])  # the same pieces in another order
    assert ties.holds([0, 0, 0, 1], [0, 0, 1, 0])
    assert not ties.holds([2], [0, 1])
    assert not ties.holds([0, 3], [0])
    # Deep in a long text float32 rounds to 2^-10 or so.
    deep = Ties((-2.0, -2.0005, -1.0), (1, 1, 1))
    assert not deep.holds([0], [1])
    assert deep.holds([2] * 9000 + [0], [2] * 9000 + [1])


@pytest.mark.parametrize("method", ["continued", "append"])
def test_stage_extends_a_unigram_model_and_proves_it(extend, base_model, texts, method):
    outcome, root = extend(base_model, add=100, method=method, measure=("english",))
    facts = outcome.facts
    before, rows = load_tokenizer(base_model).size, vocabulary_size(base_model)
    assert facts["size"] == vocabulary_size(root) == -(-(rows + 100) // 8) * 8
    assert (facts["base_size"], facts["padding_rows"], facts["unreachable"]) == (before, 0, 0)
    assert facts["unigram"]["scores"] == "keep"
    assert facts["old_ids"] == {"documents": 8, "same": 8, "promised": True}
    assert facts["old_text_parity"]["max_abs_logit_difference"] == 0.0
    assert facts["round_trip"] == {"documents": 136, "failures": 0, "altered_by_base": 0, "unknown": 0}
    assert facts["sentencepiece"] == {"documents": 136, "differences": 0, "base_differences": 0, "ties": 0}
    assert facts["transformers_parity"]["max_abs_difference"] <= 1e-4
    # Characters are looked at within a text: the space that is put before one would be a second token.
    assert facts["coverage"]["characters_single_token_before"] > 0.5
    assert outcome.counts["tokens_after"] < 0.5 * outcome.counts["tokens_before"]
    written, peer = load_tokenizer(root), AutoTokenizer.from_pretrained(root)
    for text in texts["japanese"][:5]:
        assert peer(text, add_special_tokens=False)["input_ids"] == encode(written, text)


def test_stage_that_estimates_anew_says_that_old_text_may_change(extend, base_model):
    outcome, _ = extend(base_model, add=40, scores="re-estimate", measure=("english",))
    facts = outcome.facts
    assert facts["old_ids"]["documents"] == 8
    assert facts["old_ids"]["promised"] is False
    assert facts["old_text_parity"]["max_abs_logit_difference"] == 0.0
    assert facts["unigram"]["scores"] == "re-estimate"


def test_stage_without_bytes_counts_what_no_piece_spells(extend, make_base, tmp_path):
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=make_base("t5").size))
    initialise(decoder, 3)
    save_model(decoder, make_base("t5"), tmp_path / "t5")
    outcome, _ = extend(tmp_path / "t5", add=40, initialise="frequency-weighted-mean")
    assert outcome.facts["round_trip"]["failures"] == 0
    assert outcome.facts["round_trip"]["unknown"] < 68
    assert outcome.facts["unreachable"] == 0


def test_measure_prints_the_curve_of_a_unigram_tokenizer(base_model, corpora, capsys):
    measure(str(base_model), corpora["japanese"], sizes="25,50", json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["tokenizer"]["kind"] == "Unigram"
    assert [point["pieces"] for point in found["curve"]] == [0, 25, 50]
    tokens = [point["tokens"] for point in found["curve"]]
    assert tokens == sorted(tokens, reverse=True)
