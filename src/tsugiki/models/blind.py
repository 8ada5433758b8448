"""Unigram tokenizers that take special tokens spelled out in a text for what they are: text."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, models


def blind_to_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that gives the same ids but never a special one, or the same object where it can't.

    The models of `tokenizers` other than Unigram build pieces up from characters and never arrive at `</s>`.
    A Unigram model holds it as a piece of score 0, better than any segmentation, so a crawled page could end
    a document (SentencePiece itself leaves control pieces out of its search). Here these pieces begin with a
    space, which no normalised text holds: spaces are `▁` by then.
    """
    if not isinstance(tokenizer.model, models.Unigram) or _keeps_spaces(tokenizer):
        return tokenizer
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    vocabulary = data["model"]["vocab"]
    hidden = {token["id"] for token in data["added_tokens"] if token["special"]}
    hidden |= {data["model"]["unk_id"]}
    for number in hidden:
        if number is not None and number < len(vocabulary):
            vocabulary[number][0] = " " + vocabulary[number][0]
    kept = [token for token in data["added_tokens"] if not token["special"]]
    data |= {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
    blind = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
    blind.encode_special_tokens = True
    is_same = all(blind.token_to_id(token["content"]) == token["id"] for token in kept)
    return blind if is_same else tokenizer


def _keeps_spaces(tokenizer: Tokenizer) -> bool:
    text = "a b  c "
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    parts = [text] if tokenizer.pre_tokenizer is None else tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return any(" " in (part if isinstance(part, str) else part[0]) for part in parts)
