"""The fast library against the reference, on tokenizers of every kind that is extended."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tsugiki.dataset import tokenise as tokenise_module
from tsugiki.dataset.encoders import (
    Encoded,
    awkward_texts,
    fastest_encoder,
    first_difference,
    reference_encoder,
    without_metaspace,
)
from tsugiki.dataset.tokenise import DOCUMENTS, HEADER, TOKENS, tokenise
from tsugiki.models.directory import write_tokenizer
from tsugiki.models.tokenizer import TextTokenizer

SPECIALS = ["<unk>", "<s>", "</s>"]


ASCII = [chr(code) for code in range(33, 127)]


def sentencepiece_style(texts, metaspace=None, alphabet=ASCII):
    """BPE with byte fallback, as Llama 2 has it (a normalizer), or with a Metaspace pre-tokenizer."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Replace("\n", "")]
    )
    learner.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=True)
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [tuple(merge) for merge in learnt["merges"]],
            byte_fallback=True,
            unk_token="<unk>",  # noqa: S106 (no password)
            fuse_unk=True,
        )
    )
    if metaspace is None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=metaspace, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return TextTokenizer(tokenizer, 1, 2)


def with_added_tokens(tokenizer):
    other = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    other.add_tokens([AddedToken("<think>", normalized=False), AddedToken("日本", single_word=True)])
    other.add_special_tokens(["<|im_start|>"])
    return TextTokenizer(other, tokenizer.bos_id, tokenizer.eos_id)


@pytest.fixture(scope="module")
def tokenizers_by_kind(tokenizer, make_texts):
    texts = make_texts(200)
    llama = sentencepiece_style(texts)
    return {
        "byte-level": tokenizer,
        "byte-level with added tokens": with_added_tokens(tokenizer),
        "llama": llama,
        "llama with added tokens": with_added_tokens(llama),
        "metaspace first": sentencepiece_style(texts, "first"),
        "metaspace always": sentencepiece_style(texts, "always"),
        "metaspace never": sentencepiece_style(texts, "never"),
    }


KINDS = (
    "byte-level",
    "byte-level with added tokens",
    "llama",
    "llama with added tokens",
    "metaspace first",
    "metaspace always",
    "metaspace never",
)


@pytest.mark.parametrize("kind", KINDS)
def test_fastest_encoder_is_the_fast_library_with_the_same_ids(tokenizers_by_kind, make_texts, kind):
    pytest.importorskip("fastokens")
    texts = make_texts(200, seed=5)
    tokenizer = tokenizers_by_kind[kind]
    encoder = fastest_encoder(tokenizer, texts)
    assert encoder.name.startswith("fastokens "), encoder.reason
    encoded = encoder.encode(texts)
    for number, expected in enumerate(tokenizer.encode_batch(texts)):
        assert encoded.text(number).tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=5),
    kind=st.sampled_from(KINDS),
)
def test_fastest_encoder_agrees_on_any_text(tokenizers_by_kind, texts, kind):
    pytest.importorskip("fastokens")
    encoder = _encoder_of(tokenizers_by_kind, kind)
    reference = reference_encoder(tokenizers_by_kind[kind]).encode(texts)
    encoded = encoder.encode(texts)
    assert encoded.ids.tolist() == reference.ids.tolist()
    assert encoded.offsets.tolist() == reference.offsets.tolist()


_ENCODERS = {}


def _encoder_of(tokenizers_by_kind, kind):
    if kind not in _ENCODERS:
        _ENCODERS[kind] = fastest_encoder(tokenizers_by_kind[kind], [])
    return _ENCODERS[kind]


def test_fastest_encoder_takes_special_tokens_in_a_text_as_text(tokenizer):
    pytest.importorskip("fastokens")
    encoded = fastest_encoder(tokenizer, []).encode(["a<|end_of_text|>b", "<|begin_of_text|>"])
    assert not {tokenizer.bos_id, tokenizer.eos_id} & set(encoded.ids.tolist())


def test_fastest_encoder_without_the_library_is_the_reference_and_says_so(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    encoder = fastest_encoder(tokenizer, ["text"])
    assert encoder.name.startswith("tokenizers ")
    assert "not installed" in encoder.reason


def test_fastest_encoder_of_a_tokenizer_that_the_library_cannot_read_is_the_reference():
    pytest.importorskip("fastokens")
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    encoder = fastest_encoder(TextTokenizer(unigram, None, None), ["ab"])
    assert encoder.name.startswith("tokenizers ")
    assert "does not read this tokenizer" in encoder.reason


def test_fastest_encoder_whose_ids_differ_is_the_reference_with_the_text_at_fault(tokenizers_by_kind):
    # An added token cuts a text; the library then puts ▁ before each part, "first" only before the first.
    pytest.importorskip("fastokens")
    cut = with_added_tokens(tokenizers_by_kind["metaspace first"])
    encoder = fastest_encoder(cut, ["text"])
    assert encoder.name.startswith("tokenizers ")
    assert "gives other ids for" in encoder.reason


def test_fastest_encoder_sees_a_difference_that_the_documents_do_not_show(make_texts):
    # Without "<" in its alphabet, "<0x0A>" is six bytes; fastokens 0.3.5 takes it for the piece of byte 0x0A.
    pytest.importorskip("fastokens")
    tokenizer = sentencepiece_style(make_texts(200), alphabet=[])
    encoder = fastest_encoder(tokenizer, make_texts(50))
    assert encoder.reason.endswith("gives other ids for '<0x0A>'")


def test_first_difference_names_the_first_text_and_errors():
    def encode(texts):
        return Encoded(np.arange(len(texts), dtype=np.uint32), np.arange(len(texts) + 1))

    def other(texts):
        return Encoded(np.asarray([0, 7, 8], dtype=np.uint32), np.arange(len(texts) + 1))

    def broken(texts):
        raise OSError("gone")

    assert first_difference(encode, encode, ["a", "b", "c"]) is None
    assert first_difference(encode, other, ["a", "b", "c"]) == "b"
    assert first_difference(broken, other, ["a"]) == "error: gone"


def test_awkward_texts_are_the_same_each_time_and_spell_out_added_tokens(tokenizer):
    texts = awkward_texts(tokenizer)
    assert texts == awkward_texts(tokenizer)
    assert "a<|end_of_text|>b" in texts
    assert len(texts) > 1000


def test_without_metaspace_leaves_other_tokenizers_as_they_are(tokenizers_by_kind):
    for kind in ("byte-level", "llama"):
        tokenizer = tokenizers_by_kind[kind].tokenizer
        assert without_metaspace(tokenizers_by_kind[kind]) == json.loads(tokenizer.to_str())


THREADS = """
import sys
from pathlib import Path
from tsugiki.dataset import tokenise as module
from tsugiki.dataset.encoders import fastest_encoder
from tsugiki.models.tokenizer import load_tokenizer
root = Path(sys.argv[1])
tokenizer = load_tokenizer(root / "tokenizer")
module._WORTH_A_CHECK = 0
module.tokenise(root, tokenizer, root / sys.argv[2])
"""


def test_tokenise_gives_the_same_bytes_whatever_the_library_and_the_threads(
    tmp_path, tokenizer, make_texts, write_parts, monkeypatch
):
    write_parts(tmp_path, [make_texts(600, seed, 20) for seed in (1, 2)])
    write_tokenizer(tokenizer, tmp_path / "tokenizer")
    for threads in ("1", "3"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", THREADS, str(tmp_path), threads], env=environment, check=True)
    monkeypatch.setattr(tokenise_module, "_BATCH_DOCUMENTS", 100)
    units = tokenise(tmp_path, tokenizer, tmp_path / "reference", encoder=reference_encoder(tokenizer))
    for unit in units:
        for name in (TOKENS, DOCUMENTS, HEADER):
            expected = (unit / name).read_bytes()
            assert {(tmp_path / t / unit.name / name).read_bytes() for t in ("1", "3")} == {expected}
