"""Text to token ids and back, with the byte length of every piece; training a byte-level BPE tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.identity import canonical_json
from tsugiki.errors import DataError, InputError
from tsugiki.models.blind import blind_to_special_tokens
from tsugiki.models.byte_level import keeps_characters_whole
from tsugiki.models.spelling import SPACE, TokenizerKind, byte_of, content_of, kind_of, parts_of

BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"

WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is cut into words before BPE: `pat_str` of Llama 3 (meta-llama/llama3, llama/tokenizer.py)."""

TOKENIZER_FILE = "tokenizer.json"
SIDE_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
    "generation_config.json",
)
"""Files beside tokenizer.json that other programs read; carried along unchanged. generation_config.json is
among them, since it names the tokens that end an answer (Llama 3's chat models have two)."""


class TextTokenizer:
    """A Hugging Face tokenizer as a function from text to ids: no special tokens, truncation or padding.

    Special tokens that are spelled out in a text are text too: nothing in a corpus can end a document.
    bos_id, eos_id: the tokens before and after a document, None where the tokenizer has none.
    side_files: contents of `SIDE_FILES` by name, for writing the tokenizer out again.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        bos_id: int | None,
        eos_id: int | None,
        side_files: Mapping[str, bytes] | None = None,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.side_files = dict(side_files or {})

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """Every piece as tokenizer.json spells it, by id; "" for an id that is not given to any."""
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        pieces = [""] * (max(vocabulary.values()) + 1)
        for piece, number in vocabulary.items():
            pieces[number] = piece
        return tuple(pieces)

    @property
    def size(self) -> int:
        """The number of ids, special tokens included: the largest id and one."""
        return len(self.pieces)

    def to_json(self) -> str:
        """The text of tokenizer.json; equal tokenizers give equal bytes."""
        return self.tokenizer.to_str(pretty=True) + "\n"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of tokenizer.json in canonical form: layout and key order do not count."""
        return hashlib.sha256(canonical_json(json.loads(self.to_json())).encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of each text, without special tokens."""
        encodings = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; special tokens are passed over, broken UTF-8 becomes U+FFFD."""
        return self.tokenizer.decode([int(number) for number in ids], skip_special_tokens=True)

    def after_normaliser(self, text: str) -> str:
        """A text as the normaliser hands it on to be cut; unchanged where there is none."""
        normaliser = self.tokenizer.normalizer
        return text if normaliser is None else str(normaliser.normalize_str(text))

    def encode_within(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text as they are within a longer one: without a space that is put before a text.

        For tokenizers that spell spaces as `▁` the model alone is asked; a text is then taken as normalised.
        """
        if self.kind is TokenizerKind.BYTE_LEVEL:
            encodings = self._unprefixed.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        model = self._encoder.model
        return [[token.id for token in model.tokenize(text.replace(" ", SPACE))] for text in texts]

    def stretches(self, text: str) -> list[str]:
        """A text, normalised, in the parts that the model encodes one by one."""
        cutter, normal = self.tokenizer.pre_tokenizer, self.after_normaliser(text)
        return [normal] if cutter is None else [part for part, _ in cutter.pre_tokenize_str(normal)]

    def normalised(self, text: str) -> str:
        """What would come back of a text if the model had a piece for every character."""
        decoder, stretches = self.tokenizer.decoder, self.stretches(text)
        return "".join(stretches) if decoder is None else str(decoder.decode(stretches))

    @cached_property
    def unknown_id(self) -> int | None:
        """Of a Unigram tokenizer, the id of characters that it has no piece for; None for other kinds."""
        if self.kind is not TokenizerKind.UNIGRAM:
            return None
        number: int | None = json.loads(self.tokenizer.to_str())["model"]["unk_id"]
        return number

    @cached_property
    def _encoder(self) -> Tokenizer:
        return blind_to_special_tokens(self.tokenizer)

    @cached_property
    def _unprefixed(self) -> Tokenizer:
        """The same without the space that some byte-level tokenizers put before a text."""
        data = json.loads(self.tokenizer.to_str())
        prefixing = [part for part in parts_of(data["pre_tokenizer"]) if part.get("add_prefix_space")]
        if not prefixing:
            return self.tokenizer
        for part in prefixing:
            part["add_prefix_space"] = False
        unprefixed = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
        unprefixed.encode_special_tokens = True
        return unprefixed

    @cached_property
    def kind(self) -> TokenizerKind:
        """How pieces are spelled and joined."""
        return kind_of(json.loads(self.tokenizer.to_str()))

    @property
    def is_byte_level(self) -> bool:
        """Whether pieces are spelled in GPT-2's alphabet of 256 characters, one a byte."""
        return self.kind is TokenizerKind.BYTE_LEVEL

    @cached_property
    def contents(self) -> tuple[bytes | None, ...]:
        """The bytes of text that each piece stands for, by id; None for special and added tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return tuple(
            None if number in added else content_of(self.kind, piece)
            for number, piece in enumerate(self.pieces)
        )

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    @cached_property
    def piece_bytes(self) -> NDArray[np.int32]:
        """UTF-8 bytes of text behind each id, (size,); special tokens 0.

        For byte-level tokenizers `piece_bytes[ids].sum()` is exactly the byte length of the encoded text. For
        SentencePiece-style ones `<0xE3>` is one byte and `▁` a space; the sum can then differ by the space
        that the tokenizer puts before a text.
        """
        byte_level = self.is_byte_level
        added = self.tokenizer.get_added_tokens_decoder()
        lengths = np.zeros(self.size, dtype=np.int32)
        for number, piece in enumerate(self.pieces):
            if number in self.special_ids:
                continue
            if number in added:
                lengths[number] = len(added[number].content.encode())
            elif byte_level:
                lengths[number] = len(piece)
            elif byte_of(piece) is not None:
                lengths[number] = 1
            else:
                lengths[number] = len(piece.replace(SPACE, " ").encode())
        return lengths

    def files(self) -> dict[str, bytes]:
        """Name and content of the tokenizer's files in a model directory."""
        named = {TOKENIZER_FILE: self.to_json().encode(), **self.side_files}
        if "tokenizer_config.json" not in named:
            config = {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": None if self.bos_id is None else self.pieces[self.bos_id],
                "eos_token": None if self.eos_id is None else self.pieces[self.eos_id],
                "clean_up_tokenization_spaces": False,
            }
            named["tokenizer_config.json"] = (
                json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            ).encode()
        return named


def pieces_in_json(tokenizer_json: Mapping[str, Any]) -> int:
    """The largest id in a tokenizer.json, and one, without building the tokenizer."""
    vocabulary = (tokenizer_json.get("model") or {}).get("vocab") or {}
    largest = max(vocabulary.values(), default=-1) if isinstance(vocabulary, Mapping) else len(vocabulary) - 1
    added = (token["id"] for token in tokenizer_json.get("added_tokens") or ())
    return max(largest, *added, -1) + 1


def load_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer of a model directory.

    The document's first and last token are those of tokenizer_config.json, else those of config.json.
    Raises InputError where tokenizer.json is missing or can't be read.
    """
    path = directory / TOKENIZER_FILE
    if not path.exists():
        raise InputError(
            f"{directory} holds no {TOKENIZER_FILE}",
            hint="choose a model with a fast tokenizer, or save it once with transformers' AutoTokenizer",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path} can't be read: {error}", hint="fetch the file again") from error
    side_files = {name: (directory / name).read_bytes() for name in SIDE_FILES if (directory / name).exists()}
    bos_id, eos_id = (_special_id(directory, tokenizer, name) for name in ("bos", "eos"))
    return TextTokenizer(tokenizer, bos_id, eos_id, side_files)


def _special_id(directory: Path, tokenizer: Tokenizer, name: str) -> int | None:
    path = directory / "tokenizer_config.json"
    token = read_json(path).get(f"{name}_token") if path.exists() else None
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None:
        number = tokenizer.token_to_id(text)
        if number is None:
            raise InputError(
                f'{path} names "{text}" as {name}_token, which {TOKENIZER_FILE} does not know',
                hint="mend the file",
            )
        return int(number)
    path = directory / "config.json"
    number = read_json(path).get(f"{name}_token_id") if path.exists() else None
    return number[0] if isinstance(number, list) else number


def train_byte_level_bpe(texts: Iterable[str], size: int) -> TextTokenizer:
    """Train a byte-level BPE tokenizer of exactly `size` pieces.

    The same texts give the same bytes. The pieces are the two special tokens (`BOS`, `EOS`: ids 0 and 1),
    the 256 bytes, then merges in the order they were learnt. Words are cut by `WORD_PATTERN`, and no
    piece crosses a character's edge. As in Llama 3, a text encoded for the model with special tokens starts
    with `BOS`.

    Raises InputError for a size below 258, DataError where the texts hold fewer different pairs than asked
    for.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size < len(alphabet) + 2:
        raise InputError(
            f"a byte-level vocabulary of {size} pieces can't hold the 256 bytes and two special tokens",
            hint="ask for 258 or more",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _learn_whole_characters(tokenizer, list(texts), size, sorted(alphabet))
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A",
                pair=f"{BOS} $A {BOS} $B",
                special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
            ),
        ]
    )
    return TextTokenizer(tokenizer, tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS))


def _learn_whole_characters(tokenizer: Tokenizer, texts: list[str], size: int, alphabet: list[str]) -> None:
    """Train, and leave out merges that join a part of one character to (a part of) another.

    Such pieces (the end of one Japanese character with the start of the next, say) win a place in a base by
    frequency, and would later keep an extension from seeing the characters whole: merges of the base come
    first. More merges are learnt than asked for until enough good ones are there; where the texts hold no
    more, the others fill up, last and so with the least priority.
    """
    spare = max(32, size // 32)
    while True:
        trainer = trainers.BpeTrainer(
            vocab_size=size + spare,
            special_tokens=[AddedToken(BOS, special=True), AddedToken(EOS, special=True)],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        learnt = json.loads(tokenizer.to_str())["model"]
        pieces = {piece: number for piece, number in learnt["vocab"].items() if number < len(alphabet) + 2}
        good = [merge for merge in learnt["merges"] if keeps_characters_whole("".join(merge))]
        kept = _take_merges(good, pieces, size)
        if len(pieces) < size and tokenizer.get_vocab_size() < size + spare:  # the texts hold no more pairs
            done = set(kept)
            rest = [merge for merge in learnt["merges"] if tuple(merge) not in done]
            kept += _take_merges(rest, pieces, size)
            if len(pieces) < size:
                raise DataError(
                    f"the texts give a vocabulary of {len(pieces)} pieces; {size} were asked for",
                    hint="give more text, or ask for fewer pieces",
                )
        if len(pieces) == size:
            tokenizer.model = models.BPE(pieces, kept)
            return
        spare *= 2


def _take_merges(merges: list[list[str]], pieces: dict[str, int], size: int) -> list[tuple[str, str]]:
    """The merges whose parts are in `pieces`, in order, until it holds `size`; their results join it."""
    taken = []
    for left, right in merges:
        if len(pieces) == size:
            break
        if left in pieces and right in pieces:
            taken.append((left, right))
            pieces.setdefault(left + right, len(pieces))
    return taken
