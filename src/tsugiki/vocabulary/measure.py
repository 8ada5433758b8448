"""What the new pieces save, on text that they were not learnt on; round trips; coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.extend import Extension
from tsugiki.vocabulary.sentencepiece_ids import PeerIds
from tsugiki.vocabulary.words import BATCH_DOCUMENTS, count_documents, measuring_split, sample_documents

EXAMPLES = 40


@dataclass
class Tally:
    """Sums over the measured documents of one host in one language."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0
    tokens_before: int = 0
    tokens_after: int = 0


@dataclass
class Measurement:
    """What was seen in the documents.

    tallies: by (dataset, language, host), held-out documents. uses_P: how often each piece of the extended
    tokenizer was used in them. characters: how often each character occurred in those of the first dataset.
    documents, failures: round trips tried, over all splits, and those that did not give the text back.
    all_documents: those that there are, sampled or not.
    altered_by_base: documents that the base does not give back either (Qwen's NFC, a U+2581 that
    SentencePiece takes for a space), and the extended tokenizer exactly as the base. unknown: documents with
    characters that a Unigram tokenizer without bytes to fall back to has no piece for, as before.
    old_documents, old_documents_same: held-out documents whose encoding uses no new piece, and those of them
    whose ids are the base's. plain_texts: pieces of
    text whose encoding uses no new piece. sentencepiece: where there is a tokenizer.model, documents that it
    encodes otherwise than tokenizer.json.
    """

    uses_P: NDArray[np.int64]
    base_size: int
    fragments: Counter[str] = field(default_factory=Counter)
    """Tokens of the first dataset that are no whole characters, "before" and "after"; `tokens` counts all."""
    tokens: Counter[str] = field(default_factory=Counter)
    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict)
    characters: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    all_documents: int = 0
    failures: int = 0
    altered_by_base: int = 0
    unknown: int = 0
    old_documents: int = 0
    old_documents_same: int = 0
    sentencepiece: PeerIds | None = None
    plain_texts: list[str] = field(default_factory=list)
    new_texts: list[str] = field(default_factory=list)

    @property
    def is_sample(self) -> bool:
        """Whether there are documents that were not looked at."""
        return self.documents < self.all_documents


def measure(
    base: TextTokenizer,
    extension: Extension,
    datasets: Sequence[tuple[str, Path]],
    *,
    maximum_characters: int,
    wanted_texts: int,
    progress: Callable[[int], None],
) -> Measurement:
    """Encode the documents of `datasets` (name, directory) with both tokenizers.

    The first dataset is the one the pieces were learnt for. Round trips are checked on all documents, tokens
    counted on the held-out ones (on all where none are held out); of a dataset with more than
    `maximum_characters` an even sample is taken. `wanted_texts` is how many lines to collect with and
    without new pieces. progress: called with the number of documents done.
    """
    found = Measurement(np.zeros(extension.tokenizer.size, dtype=np.int64), extension.base_size)
    found.sentencepiece = PeerIds.of(base, extension.tokenizer)
    is_fragment = {"before": _fragments(base), "after": _fragments(extension.tokenizer)}
    for place, (name, directory) in enumerate(datasets):
        measured = measuring_split(directory)
        found.all_documents += count_documents(directory)
        for rows in _row_batches(directory, maximum_characters):
            texts = [row["text"] for row in rows]
            after = extension.tokenizer.encode_batch(texts)
            _check_round_trips(found, (base, extension.tokenizer), texts, after)
            if found.sentencepiece is not None:
                found.sentencepiece.compare(texts, after)
            chosen = [number for number, row in enumerate(rows) if row["split"] == measured]
            before = base.encode_batch([texts[number] for number in chosen])
            for old_T, number in zip(before, chosen, strict=True):
                _count(found, name, rows[number], old_T, after[number])
                if place == 0:
                    found.characters.update(texts[number])
                    for moment, ids_T in (("before", old_T), ("after", after[number])):
                        found.fragments[moment] += int(is_fragment[moment][ids_T].sum())
                        found.tokens[moment] += len(ids_T)
            _collect_texts(found, extension, [texts[number] for number in chosen], wanted_texts)
            progress(found.documents)
    return found


def _fragments(tokenizer: TextTokenizer) -> NDArray[np.bool_]:
    """For each piece, whether its bytes are no whole characters."""
    pieces = [content or b"" for content in tokenizer.contents]
    return np.array([piece.decode("utf-8", "ignore").encode() != piece for piece in pieces], dtype=np.bool_)


def _row_batches(directory: Path, maximum_characters: int) -> Iterator[list[dict[str, Any]]]:
    rows = sample_documents(directory, maximum_characters, columns=("host", "language"))
    while batch := list(islice(rows, BATCH_DOCUMENTS)):
        yield batch


def _check_round_trips(
    found: Measurement,
    tokenizers: tuple[TextTokenizer, TextTokenizer],
    texts: Sequence[str],
    encoded: Sequence[NDArray[np.uint32]],
) -> None:
    """Decode what the extended tokenizer (the second one) encoded; the base is asked where text differs."""
    base, extended = tokenizers
    decoded = extended.tokenizer.decode_batch([ids.tolist() for ids in encoded], skip_special_tokens=True)
    unknown = extended.unknown_id
    for text, back, ids_T in zip(texts, decoded, encoded, strict=True):
        if back == text:
            continue
        if unknown is not None and unknown in ids_T:
            found.unknown += 1
        elif back in {base.decode(base.encode_batch([text])[0]), base.normalised(text)}:
            found.altered_by_base += 1
        else:
            found.failures += 1
    found.documents += len(texts)


def _count(
    found: Measurement,
    dataset: str,
    row: dict[str, Any],
    old_T: NDArray[np.uint32],
    new_T: NDArray[np.uint32],
) -> None:
    key = (dataset, row["language"] or "", row["host"] or "")
    tally = found.tallies.setdefault(key, Tally())
    tally.documents += 1
    tally.characters += len(row["text"])
    tally.bytes += len(row["text"].encode())
    tally.tokens_before += len(old_T)
    tally.tokens_after += len(new_T)
    if new_T.max(initial=0) < found.base_size:
        found.old_documents += 1
        found.old_documents_same += np.array_equal(old_T, new_T)
    found.uses_P += np.bincount(new_T, minlength=len(found.uses_P))


_SHORTEST_TEXT_CHARACTERS = 40


def _collect_texts(found: Measurement, extension: Extension, texts: Sequence[str], wanted: int) -> None:
    if len(found.plain_texts) >= wanted and len(found.new_texts) >= wanted:
        return
    lines = [line for text in texts for line in text.splitlines() if len(line) >= _SHORTEST_TEXT_CHARACTERS]
    for line, ids in zip(lines, extension.tokenizer.encode_batch(lines), strict=True):
        texts_of_kind = found.plain_texts if ids.max(initial=0) < extension.base_size else found.new_texts
        if len(texts_of_kind) < wanted:
            texts_of_kind.append(line)


def savings(found: Measurement) -> list[dict[str, Any]]:
    """Tokens before and after by dataset, language and host, in a fixed order."""
    return [
        {"dataset": dataset, "language": language, "domain": host, **vars(tally)}
        for (dataset, language, host), tally in sorted(found.tallies.items())
    ]


def coverage(found: Measurement, base: TextTokenizer, extended: TextTokenizer) -> dict[str, float]:
    """How whole the first dataset's characters stay.

    characters_, occurrences_single_token: the share of its characters, distinct and by occurrence, that are
    one token on their own. fragment_tokens: the share of the tokens of its running text that are no whole
    characters; merges of the base across characters show here alone.
    """
    characters = sorted(found.characters)
    counts = np.array([found.characters[character] for character in characters], dtype=np.int64)
    shares: dict[str, float] = {"distinct_characters": len(characters)}
    for moment, tokenizer in (("before", base), ("after", extended)):
        # Within a text: many tokenizers put a space before one, which would be a second token.
        encoded = tokenizer.encode_within(characters)
        lost = [tokenizer.unknown_id]
        is_single = np.array([len(ids) == 1 and ids != lost for ids in encoded], dtype=np.bool_)
        shares[f"characters_single_token_{moment}"] = round(float(is_single.mean()), 6)
        shares[f"fragment_tokens_{moment}"] = round(found.fragments[moment] / max(found.tokens[moment], 1), 6)
        shares[f"occurrences_single_token_{moment}"] = round(float(counts[is_single].sum() / counts.sum()), 6)
    return shares


def examples(found: Measurement, extension: Extension) -> list[dict[str, Any]]:
    """The new pieces used most in the measured text, with their counts; ties by id."""
    whole = [number for number, _ in _whole_new_pieces(extension)]
    order = sorted(whole, key=lambda number: (-found.uses_P[number], number))[:EXAMPLES]
    texts = dict(_whole_new_pieces(extension))
    return [{"text": texts[number], "count": int(found.uses_P[number])} for number in order]


def unused_share(found: Measurement, extension: Extension) -> float:
    """The share of new whole pieces that the measured text does not use."""
    uses = [found.uses_P[number] for number, _ in _whole_new_pieces(extension)]
    return round(float(np.mean([count == 0 for count in uses])), 6)


def _whole_new_pieces(extension: Extension) -> list[tuple[int, str]]:
    found = []
    for number in range(extension.base_size, extension.tokenizer.size):
        try:
            found.append((number, (extension.tokenizer.contents[number] or b"").decode()))
        except UnicodeDecodeError:
            continue
    return found


def plain_pieces_text(base: TextTokenizer, extension: Extension) -> Iterator[str]:
    """The base's own pieces as texts that use no new piece, for corpora in which every line uses one."""
    for content in base.contents:
        try:
            text = (content or b"").decode()
        except UnicodeDecodeError:
            continue
        ids = extension.tokenizer.encode_batch([text])[0]
        if len(ids) and ids.max() < extension.base_size:
            yield text
