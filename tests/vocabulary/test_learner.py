from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.vocabulary.learner import Limits, learn_merges
from tsugiki.vocabulary.pieces import Scripts, describe_pieces, script_of
from tsugiki.vocabulary.words import Words

BYTES = [bytes([byte]) for byte in range(256)]


def make_words(counts: dict[str, int], pieces=BYTES) -> Words:
    """Words as single bytes; `pieces` longer than a byte are applied greedily, longest first."""
    tokens, numbers = [], []
    for number, word in enumerate(counts):
        rest = word.encode()
        while rest:
            piece = max(
                (p for p in range(len(pieces)) if rest.startswith(pieces[p])), key=lambda p: len(pieces[p])
            )
            tokens.append(piece)
            numbers.append(number)
            rest = rest[len(pieces[piece]) :]
    characters = Counter(character for word, count in counts.items() for character in word * count)
    return Words(
        np.array(tokens, dtype=np.int32),
        np.array(numbers, dtype=np.int32),
        np.array(list(counts.values()), dtype=np.int64),
        characters,
    )


def learn(counts, limits, pieces=BYTES):
    words, scripts = make_words(counts, pieces), Scripts()
    table = describe_pieces(pieces, len(pieces) + 3 * limits.wanted + 8, scripts)
    return learn_merges(words, pieces, table, scripts.table(words.characters), limits)


def contents(merges, pieces=BYTES):
    found = list(pieces)
    for left, right, target in merges.merges_M3.tolist():
        if target == len(found):
            found.append(found[left] + found[right])
    return found


def allowed(content: bytes, left: bytes, limits: Limits) -> str | None:
    """The rules of pieces.py, said again over bytes: "whole", "fragment" or None."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "fragment" if _is_lead(content) and _is_lead(left) else None
    try:
        left.decode()
    except UnicodeDecodeError:
        return "whole" if len(text) == 1 else None
    scripts = {script_of(character) for character in text} - {""}
    if len(text) > limits.maximum_characters or len(scripts) > 1 or (text.isascii() and not limits.ascii):
        return None
    return "whole"


def _is_lead(content: bytes) -> bool:
    wanted = (
        2 if 0xC2 <= content[0] < 0xE0 else 3 if 0xE0 <= content[0] < 0xF0 else 4 if content[0] >= 0xF0 else 0
    )
    return len(content) < wanted and all(0x80 <= byte < 0xC0 for byte in content[1:])


def oracle(counts, limits, pieces=BYTES):
    """Count every pair of every word anew for every merge."""
    words = make_words(counts, pieces)
    lines = [words.token_S[words.word_S == number].tolist() for number in range(len(counts))]
    found, base, merges, kept = list(pieces), len(pieces), [], set()
    while len(kept) < limits.wanted:
        pairs: Counter[tuple[int, int]] = Counter()
        for line, count in zip(lines, counts.values(), strict=True):
            for pair in itertools.pairwise(line):
                pairs[pair] += count
        chosen = next(
            (
                pair
                for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
                if count >= limits.minimum_count
                and allowed(found[pair[0]] + found[pair[1]], found[pair[0]], limits)
                and found[pair[0]] + found[pair[1]] not in found[:base]
            ),
            None,
        )
        if chosen is None:
            break
        content = found[chosen[0]] + found[chosen[1]]
        target = found.index(content) if content in found else len(found)
        if target == len(found):
            found.append(content)
            if allowed(content, found[chosen[0]], limits) == "whole":
                kept.add(target)
                part = chosen[0]
                while part >= base and part not in kept:
                    kept.add(part)
                    part = next(left for left, _, made in merges if made == part)
        merges.append((*chosen, target))
        lines = [_joined(line, chosen, target) for line in lines]
    return merges, lines


def _joined(line, pair, target):
    joined, place = [], 0
    while place < len(line):
        if tuple(line[place : place + 2]) == pair:
            joined.append(target)
            place += 2
        else:
            joined.append(line[place])
            place += 1
    return joined


def segmentation(merges, words):
    return [
        [int(t) for t in merges.token_S[words.word_S == number] if t >= 0]
        for number in range(int(words.word_S.max()) + 1)
    ]


# Runs of one symbol, several scripts, two- to four-byte characters.
WORDS = st.dictionaries(
    st.text(st.sampled_from("aab 本日のノー。é🌸🌺"), min_size=1, max_size=9),
    st.integers(1, 5),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(WORDS, st.integers(1, 3), st.integers(2, 5), st.booleans())
def test_learned_merges_equal_counting_every_pair_anew(counts, minimum, longest, keeps_ascii):
    limits = Limits(25, minimum, longest, keeps_ascii)
    merges = learn(counts, limits)
    expected, lines = oracle(counts, limits)
    assert [tuple(merge) for merge in merges.merges_M3.tolist()] == expected
    assert segmentation(merges, make_words(counts)) == lines


@settings(max_examples=50, deadline=None)
@given(WORDS)
def test_learned_merges_on_longer_base_pieces_equal_the_oracle(counts):
    pieces = [*BYTES, "本日".encode(), b"ab", "の".encode(), b"\xe6\x9c", b" a", "日の".encode()]
    limits = Limits(25, 1, 6, ascii=True)
    merges = learn(counts, limits, pieces)
    expected, lines = oracle(counts, limits, pieces)
    assert [tuple(merge) for merge in merges.merges_M3.tolist()] == expected
    assert segmentation(merges, make_words(counts, pieces)) == lines
    assert not set(contents(merges, pieces)[len(pieces) :]) & set(pieces)


def test_learning_does_not_depend_on_the_order_of_words():
    counts = {"本日の本": 3, "日本の": 3, "aaaa": 2, "のの": 3}
    limits = Limits(20, 1, 8, ascii=True)
    one, other = learn(counts, limits), learn(dict(reversed(counts.items())), limits)
    assert one.merges_M3.tolist() == other.merges_M3.tolist()


def test_learning_stops_at_wanted_pieces_and_counts_needed_fragments():
    merges = learn({"本本": 5}, Limits(2, 1, 8, ascii=True))
    assert contents(merges)[256:] == [b"\xe6\x9c", "本".encode()]


def test_learning_nothing_frequent_enough_gives_no_merges():
    merges = learn({"ab": 1, "cd": 1}, Limits(5, 2, 8, ascii=True))
    assert merges.merges_M3.shape == (0, 3)
    assert merges.pieces == 256
