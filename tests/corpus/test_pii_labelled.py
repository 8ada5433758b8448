"""Personal data in context: a labelled set, on which precision and recall are held.

In `personal_data/`. `ja.txt`, `en.txt`: kind and a text in which the personal part stands between «».
`...-nothing.txt`: texts without any. `ja-missed.txt`: what is not found, as without the word "My Number" one
number of twelve digits in eleven would be masked, and ten digits, or groups between spaces, are as often
something else than a telephone number.
"""

from pathlib import Path

import pytest

from tsugiki.corpus.cleaning.pii import mask_personal_data
from tsugiki.languages import load_pack

LABELLED = Path(__file__).with_name("personal_data")


def _lines(name):
    return (LABELLED / f"{name}.txt").read_text(encoding="utf-8").strip().split("\n")


def _labelled(name, pack):
    for line in _lines(name):
        kind, text = line.split(" ", 1)
        yield kind, text, load_pack(pack)


def _expected(text, kind, pack):
    """The text with its marked parts masked. A marked part without digits and `@` is no personal data."""
    out = []
    for place, part in enumerate(text.replace("»", "«").split("«")):
        personal = place % 2 and not (kind == "mail" and "アットマーク" in part)
        out.append(pack.personal_data.tokens[kind] if personal else part)
    return "".join(out)


def _plain(text):
    return text.replace("«", "").replace("»", "")


POSITIVES = [*_labelled("ja", "ja"), *_labelled("en", "en")]
MISSES = [*_labelled("ja-missed", "ja")]
NEGATIVES = [
    *((text, load_pack("ja")) for text in _lines("ja-nothing")),
    *((text, load_pack("en")) for text in _lines("en-nothing")),
]


def test_recall_over_the_labelled_set_is_96_percent_and_precision_full():
    missed = sum(mask_personal_data(_plain(text), pack)[1] == {} for _, text, pack in MISSES)
    assert missed == len(MISSES)  # else move the line to those that are found
    assert len(POSITIVES) / (len(POSITIVES) + missed) >= 0.96


def test_labelled_set_has_150_of_each_and_no_doubles():
    assert len(POSITIVES) >= 150
    assert len(NEGATIVES) >= 150
    assert len({(text, pack.code) for _, text, pack in POSITIVES}) == len(POSITIVES)
    assert len({(text, pack.code) for text, pack in NEGATIVES}) == len(NEGATIVES)


@pytest.mark.parametrize(("kind", "text", "pack"), POSITIVES, ids=[text for _, text, _ in POSITIVES])
def test_mask_of_personal_data_replaces_exactly_it(kind, text, pack):
    optional = ("ip", "ssn") if kind in ("ip", "ssn") else ()
    masked, changes = mask_personal_data(_plain(text), pack, optional)
    assert masked == _expected(text, kind, pack)
    assert set(changes) == {kind}


@pytest.mark.parametrize(("text", "pack"), NEGATIVES, ids=[text for text, _ in NEGATIVES])
def test_mask_of_other_numbers_changes_nothing(text, pack):
    assert mask_personal_data(text, pack) == (text, {})


@pytest.mark.parametrize("code", ["ja", "en"])
def test_pack_says_of_every_number_how_many_digits_it_has(code):
    """So a page of short numbers is not searched for long ones: half of the time that it takes."""
    assert not [item.pattern for item in load_pack(code).personal_data.numbers if not item.digits]
