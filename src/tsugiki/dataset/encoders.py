"""The fastest way to encode with a tokenizer that gives the reference's ids.

The reference is Hugging Face's `tokenizers`. fastokens (Apache-2.0; the extra `fast`) reads the same
tokenizer.json, uses all cores and hands over whole batches as arrays: 3 to 40 times the speed
(benchmarks/tokenisation.py). It is taken where it gives the same ids on a sample of the corpus and on strings
that tokenizers are known to differ on; else the reference is, with the reason in the log.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer

SAMPLE_BYTES = 1 << 20
"""UTF-8 bytes of the corpus that are encoded both ways before the faster one is trusted."""

_SHOWN = 40

AWKWARD_TEXTS = (
    *(
        "",
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n\r\n",
        " \n a",
        "a  b   c",
        "\u3000",
        "\u00a0 \u00a0",
        "\u2028\u2029\x85\x0b",
    ),
    *("▁", "▁▁a", " ▁", "a▁b", "<0x0A>", "<unk>", "<s>", "</s>", "x</s>y"),
    *("\x00", "\x00\x01\x7f", "\ufeff", "\ufffd", "\U0010ffff", "\U000e0001", "\u200b\u200d", "a\x00b"),
    *("e\u0301", "\u00e9", "ｶﾞ", "ﷺ" * 9, "İ", "ß", "ſ'S", "\u212a", "１２３", "12345678901", "𝔘𝔫𝔦"),
    *(
        "👨‍👩‍👧‍👦",
        "🇯🇵🇩🇪",
        "日本語の文章。",
        "한국어",
        "हिन्दी",
        "العربية",
        "ไทย",
        "don't DON'T I'LL",
        "...---!!!\n\n",
    ),
    *("a" * 3000, "あ" * 3000, " " * 3000, "\n" * 1000, "ab " * 1000),
)
"""Empty and blank texts, markers spelled out, control characters, composition, scripts, long runs."""


@dataclass(frozen=True)
class Encoded:
    """The ids of some texts, one after another: those of text t are ids[offsets[t] : offsets[t + 1]]."""

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    def text(self, number: int) -> NDArray[np.uint32]:
        """The ids of one text."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]]


Encode: TypeAlias = Callable[[Sequence[str]], Encoded]


@dataclass(frozen=True)
class Encoder:
    """A way to encode. name: the library and its version. reason: why it was chosen."""

    name: str
    reason: str
    encode: Encode


def reference_encoder(tokenizer: TextTokenizer, reason: str = "it is the reference") -> Encoder:
    """Hugging Face's own library, on all cores."""

    def encode(texts: Sequence[str]) -> Encoded:
        parts = tokenizer.encode_batch(texts)
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts], dtype=np.int64)))
        ids = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)
        return Encoded(ids, offsets.astype(np.int64))

    return Encoder(f"tokenizers {version('tokenizers')}", reason, encode)


def fastest_encoder(tokenizer: TextTokenizer, sample: Sequence[str]) -> Encoder:
    """The fast library where it is there, reads this tokenizer and gives the same ids; else the reference.

    sample: texts of the corpus that will be encoded, about `SAMPLE_BYTES` of them.
    """
    reference = reference_encoder(tokenizer)
    encoder = _fastokens(tokenizer)
    if encoder.name != reference.name:
        texts = [*sample, *awkward_texts(tokenizer)]
        different = first_difference(encoder.encode, reference.encode, texts)
        if different is not None:
            encoder = reference_encoder(tokenizer, f"{encoder.name} gives other ids for {different!r}")
    return encoder


def first_difference(one: Encode, other: Encode, texts: Sequence[str]) -> str | None:
    """The start of the first text whose ids differ, None where none do. An error counts as a difference."""
    try:
        found = one(texts)
    except Exception as error:  # noqa: BLE001 (whatever a library in another language raises)
        return f"error: {error}"
    expected = other(texts)
    for number, text in enumerate(texts):
        if not np.array_equal(found.text(number), expected.text(number)):
            return text[:_SHOWN]
    return None


def awkward_texts(tokenizer: TextTokenizer) -> list[str]:
    """Strings that tokenizers differ on: fixed ones, those with this one's added tokens, random mixtures."""
    added = [token.content for token in tokenizer.tokenizer.get_added_tokens_decoder().values()][:256]
    spelled = [text for token in added for text in (token, f"a{token}b", f" {token} ", f"{token}{token}\n")]
    return [*AWKWARD_TEXTS, *spelled, *_random_texts(tokenizer, added)]


def _random_texts(tokenizer: TextTokenizer, added: Sequence[str]) -> Iterator[str]:
    draw = random.Random(0)  # noqa: S311 (a fixed sample, no secret)
    pieces = [tokenizer.decode([draw.randrange(tokenizer.size)]) for _ in range(1000)]
    characters = list(" \n\t\r'.a1▁<>/あ漢é\u0301😀")
    planes = [chr(code) for code in (*range(0x80, 0xD800, 211), *range(0xE000, 0x110000, 4999))]
    for pool in (pieces, characters, planes, [*pieces, *characters, *planes, *added]):
        for _ in range(250):
            yield "".join(draw.choices(pool, k=draw.randint(1, 30)))


def _fastokens(tokenizer: TextTokenizer) -> Encoder:
    try:
        import fastokens
    except ImportError:
        return reference_encoder(tokenizer, "fastokens is not installed (pip install 'tsugiki[fast]')")
    try:
        fast = fastokens.Tokenizer.from_json_str(json.dumps(without_metaspace(tokenizer)))
    except Exception as error:  # noqa: BLE001 (whatever a library in another language raises)
        return reference_encoder(tokenizer, f"fastokens does not read this tokenizer ({error})")

    def encode(texts: Sequence[str]) -> Encoded:
        # Special tokens that are spelled out in a text are text, as in TextTokenizer.
        ids, offsets = fast.encode_batch_flat(list(texts), split_special_tokens=True)
        return Encoded(np.frombuffer(ids, "<u4"), np.frombuffer(offsets, "<u8").astype(np.int64))

    return Encoder(f"fastokens {version('fastokens')}", "the same ids as the reference on a sample", encode)


def without_metaspace(tokenizer: TextTokenizer) -> dict[str, Any]:
    """tokenizer.json, with a Metaspace pre-tokenizer that does not split written as a normalizer.

    fastokens has no Metaspace (0.3.5). Without splitting it does two things: each space becomes ▁, and a text
    that does not start with one gets one in front. Where added tokens cut a text, the schemes "first" and
    "always" differ; the comparison of ids decides there.
    """
    data: dict[str, Any] = json.loads(tokenizer.tokenizer.to_str())
    data["truncation"] = data["padding"] = None
    step = data.get("pre_tokenizer") or {}
    if step.get("type") != "Metaspace" or step.get("split", True):
        return data
    mark = step["replacement"]
    steps = [{"type": "Replace", "pattern": {"String": " "}, "content": mark}]
    if step.get("prepend_scheme") != "never":
        steps.append({"type": "Replace", "pattern": {"Regex": rf"\A(?!{mark})"}, "content": mark})
    before = [data["normalizer"]] if data.get("normalizer") else []
    return data | {
        "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": [*before, *steps]},
    }
