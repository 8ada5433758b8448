"""Places in the corpus where a new piece occurs, with what stands around it: what rows are distilled from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tsugiki.vocabulary.extend import Extension
from tsugiki.vocabulary.words import batches


@dataclass(frozen=True)
class Snippet:
    """One occurrence of a new piece; all ids are the base's.

    piece: the new piece, counted from the first new one. before, after: what surrounds it. parts: what the
    base encodes the piece to.
    """

    piece: int
    before: tuple[int, ...]
    parts: tuple[int, ...]
    after: tuple[int, ...]


def collect_snippets(
    extension: Extension, texts: Iterable[str], *, per_piece: int, tokens: int
) -> list[Snippet]:
    """The first `per_piece` occurrences of each new piece in `texts`, each of at most `tokens` base tokens.

    Half of the surroundings lie before the piece; a first token of documents, where there is one, stands
    before them. Pieces that do not occur get none.
    """
    first = () if extension.tokenizer.bos_id is None else (extension.tokenizer.bos_id,)
    left_P = np.full(extension.added, per_piece, dtype=np.int64)
    found: list[Snippet] = []
    for batch in batches(texts):
        for ids_T in extension.tokenizer.encode_batch(batch):
            ids = ids_T.tolist()
            for place in np.flatnonzero(ids_T >= extension.base_size).tolist():
                piece = ids[place] - extension.base_size
                if left_P[piece] == 0:
                    continue
                left_P[piece] -= 1
                found.append(_cut_out(extension, ids, place, first, tokens))
        if not left_P.any():
            break
    return found


@dataclass(frozen=True)
class Window:
    """A stretch of a document as the base reads it, and what the extended tokenizer says comes next.

    ids: the base's. ends: places of the last part of each token of the extended tokenizer but the last one.
    labels: the extended tokenizer's token that follows each.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    labels: tuple[int, ...]


def collect_windows(extension: Extension, texts: Iterable[str], *, count: int, tokens: int) -> list[Window]:
    """The first `count` stretches of `tokens` tokens (of the extended tokenizer) with a new piece in them."""
    first = [] if extension.tokenizer.bos_id is None else [extension.tokenizer.bos_id]
    found: list[Window] = []
    for batch in batches(texts):
        for ids_T in extension.tokenizer.encode_batch(batch):
            for start in range(0, len(ids_T), tokens):
                ids = [*first, *ids_T[start : start + tokens].tolist()]
                if len(ids) > len(first) + 1 and max(ids) >= extension.base_size:
                    found.append(_window(extension, ids))
            if len(found) >= count:
                return found[:count]
    return found


def _window(extension: Extension, ids: Sequence[int]) -> Window:
    lengths = [len(in_base(extension, [number])) for number in ids]
    ends = (np.cumsum(lengths) - 1).tolist()
    return Window(tuple(in_base(extension, ids)), tuple(ends[:-1]), tuple(ids[1:]))


def _cut_out(
    extension: Extension, ids: Sequence[int], place: int, first: tuple[int, ...], tokens: int
) -> Snippet:
    parts = extension.components[ids[place] - extension.base_size]
    room = max(2, tokens - len(parts) - len(first))
    before = in_base(extension, ids[max(0, place - room) : place])
    after = in_base(extension, ids[place + 1 : place + 1 + room])
    return Snippet(
        ids[place] - extension.base_size,
        (*first, *before[max(0, len(before) - room // 2) :]),
        parts,
        tuple(after[: room - room // 2]),
    )


def in_base(extension: Extension, ids: Iterable[int]) -> list[int]:
    """Ids with every new piece replaced by the base's pieces that it is made of."""
    return [
        part
        for number in ids
        for part in (
            (number,) if number < extension.base_size else extension.components[number - extension.base_size]
        )
    ]
