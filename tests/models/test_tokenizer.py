from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tsugiki.errors import DataError, InputError
from tsugiki.models.byte_level import byte_alphabet, keeps_characters_whole
from tsugiki.models.tokenizer import (
    BOS,
    EOS,
    TextTokenizer,
    load_tokenizer,
    pieces_in_json,
    train_byte_level_bpe,
)

TEXTS = ["the same words, the same pieces " * 3, "日本語の文章も少し。日本語の語彙。" * 3]


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example(text="<|end_of_text|> is text here")
@example(text="\r\n\t  two  spaces\n\n\n👩‍👩‍👧 e\u0301 \u3000\u0000")
def test_byte_level_any_text_survives_and_pieces_add_up_to_its_bytes(tokenizer, text):
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text
    assert tokenizer.piece_bytes[ids].sum() == len(text.encode())
    assert not set(ids.tolist()) & tokenizer.special_ids


def test_encode_batch_gives_uint32_without_special_tokens(tokenizer):
    ids = tokenizer.encode_batch(["graft", ""])
    assert [array.dtype for array in ids] == [np.uint32, np.uint32]
    assert len(ids[1]) == 0
    assert tokenizer.bos_id not in ids[0]


def test_trained_tokenizer_has_asked_size_and_special_tokens_first(tokenizer):
    assert tokenizer.size == 320
    assert (tokenizer.pieces[tokenizer.bos_id], tokenizer.pieces[tokenizer.eos_id]) == (BOS, EOS)
    assert tokenizer.special_ids == {0, 1}
    assert tokenizer.piece_bytes[[0, 1]].tolist() == [0, 0]


def test_training_twice_gives_the_same_bytes():
    one, two = (train_byte_level_bpe(iter(TEXTS), 300) for _ in range(2))
    assert one.to_json() == two.to_json()
    assert one.sha256 == two.sha256
    assert train_byte_level_bpe(TEXTS, 301).sha256 != one.sha256


def test_training_on_too_little_text_is_refused():
    with pytest.raises(DataError, match="5000 were asked for"):
        train_byte_level_bpe(["short"], 5000)


def test_training_size_below_the_alphabet_is_refused():
    with pytest.raises(InputError, match="256 bytes"):
        train_byte_level_bpe(TEXTS, 257)


def test_words_are_cut_as_llama_3_cuts_them():
    words = ["I'll", " go", " to", " 123", "4", "5", " shops", "!\n", "東京タワー", "は"]
    tokenizer = train_byte_level_bpe(TEXTS, 300)
    cut = [
        word
        for word, _ in tokenizer.tokenizer.pre_tokenizer.pre_tokenize_str("I'll go to 12345 shops!\n東京")
    ]
    assert cut == ["I", "'ll", "Ġgo", "Ġto", "Ġ", "123", "45", "Ġshops", "!Ċ", "æĿ±äº¬"]
    assert words[0] == "I'll"


def test_loaded_tokenizer_is_the_saved_one(model_directory, tokenizer):
    loaded = load_tokenizer(model_directory)
    assert loaded.sha256 == tokenizer.sha256
    assert (loaded.bos_id, loaded.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert pieces_in_json(json.loads((model_directory / "tokenizer.json").read_text())) == tokenizer.size


def test_saved_tokenizer_is_used_by_transformers_with_the_same_ids(model_directory, tokenizer):
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(model_directory)
    text = "A graft joins 接ぎ木 and 4444.\n"
    assert peer(text, add_special_tokens=False)["input_ids"] == tokenizer.encode_batch([text])[0].tolist()
    assert (peer.bos_token_id, peer.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert peer(text)["input_ids"][0] == tokenizer.bos_id


def test_loading_ignores_truncation_and_padding_in_the_file(model_directory):
    path = model_directory / "tokenizer.json"
    stored = Tokenizer.from_file(str(path))
    stored.enable_truncation(4)
    stored.enable_padding(length=8)
    stored.save(str(path))
    text = "one two three four five six seven eight"
    loaded = load_tokenizer(model_directory)
    assert loaded.decode(loaded.encode_batch([text])[0]) == text


def test_loading_takes_special_tokens_from_either_file(model_directory):
    path = model_directory / "tokenizer_config.json"
    path.write_text(json.dumps({"bos_token": {"content": BOS}}))
    (model_directory / "config.json").write_text(json.dumps({"eos_token_id": [1, 5]}))
    loaded = load_tokenizer(model_directory)
    assert (loaded.bos_id, loaded.eos_id) == (0, 1)
    path.write_text(json.dumps({"bos_token": "<nowhere>"}))
    with pytest.raises(InputError, match="<nowhere>"):
        load_tokenizer(model_directory)


def test_loading_keeps_the_files_beside_it(model_directory):
    (model_directory / "chat_template.jinja").write_text("{{ messages }}")
    assert load_tokenizer(model_directory).files()["chat_template.jinja"] == b"{{ messages }}"


def test_loading_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="can't be read"):
        load_tokenizer(tmp_path)


def test_piece_bytes_of_sentencepiece_style_pieces():
    vocabulary = {"<unk>": 0, "<0xE3>": 1, "▁": 2, "▁the": 3, "語": 4}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))  # noqa: S106
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    inner.add_special_tokens(["<unk>"])
    tokenizer = TextTokenizer(inner, None, None)
    assert not tokenizer.is_byte_level
    assert tokenizer.piece_bytes.tolist() == [0, 1, 1, 4, 3]


def test_train_byte_level_bpe_joins_no_parts_of_different_characters():
    # フ and サ end in bytes that フ and サ begin after: frequent enough to be learnt across their border
    texts = ["ファイル フォント ファイル フォント サフサフ " * 40, "plain English words, many words " * 40]
    tokenizer = train_byte_level_bpe(texts, 280)
    assert tokenizer.size == 280
    for piece in tokenizer.pieces[258:]:
        assert keeps_characters_whole(piece), piece
    (ids,) = tokenizer.encode_batch(["ファイル フォント"])
    assert tokenizer.decode(ids) == "ファイル フォント"


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"a", True),
        ("語".encode(), True),
        ("語尾".encode(), True),
        (b"\xe3\x83", True),  # the beginning of one character
        (b"\x83\x95", True),  # the end of one
        (b"\x95\xe3\x82", False),  # the end of one, the beginning of another
        (b" \xe3\x81", False),
        ("語".encode() + b"\xe3", False),
    ],
)
def test_keeps_characters_whole_of_each_sort_of_piece(data, whole):
    spelt = {byte: character for character, byte in byte_alphabet().items()}
    assert keeps_characters_whole("".join(spelt[byte] for byte in data)) == whole
