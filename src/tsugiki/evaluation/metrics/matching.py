"""Exact match, in the variants that were published, and the answer that is meant in a free text.

The published rules come first in each pair; where they lose right answers for their form, a corrected one
stands beside them.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from tsugiki.evaluation.metrics.characters import best

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
INVALID = "[invalid]"
"""What lm-evaluation-harness makes of a text without an answer."""


def llmjp_prediction(output: str) -> str:
    """The answer in a generated text as llm-jp-eval takes it: NFKC of what comes before an empty line.

    White space at the ends goes only after the cut, so one that begins with an empty line has answered "".
    """
    return unicodedata.normalize("NFKC", output.split("\n\n", maxsplit=1)[0].strip())


def llmjp_exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the text equals a reference after NFKC on both sides (llm-jp-eval's exact_match)."""
    text = unicodedata.normalize("NFKC", prediction)
    return float(any(text == unicodedata.normalize("NFKC", reference) for reference in references))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the text equals a reference but for white space at the ends."""
    return float(prediction.strip() in {reference.strip() for reference in references})


def harness_exact_match(
    prediction: str,
    references: Sequence[str],
    *,
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore: Sequence[str] = (),
) -> float:
    """lm-evaluation-harness's exact_match: both sides lose what matches `ignore`, case, ASCII punctuation.

    Several references: one has to match.
    """

    def reduced(text: str) -> str:
        for pattern in ignore:
            text = re.sub(pattern, "", text)
        if ignore_case:
            text = text.lower()
        return text.translate(_NO_PUNCTUATION) if ignore_punctuation else text

    return float(reduced(prediction) in {reduced(reference) for reference in references})


def trivia_qa_match(prediction: str, aliases: Sequence[str]) -> float:
    """TriviaQA as published: one leading space off, then any alias, ignoring case and ASCII punctuation."""
    return harness_exact_match(
        prediction.removeprefix(" "), aliases, ignore_case=True, ignore_punctuation=True
    )


def squad_normalise(text: str) -> str:
    """Lower case without ASCII punctuation, English articles and repeated spaces: SQuAD's own script."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def squad_exact(prediction: str, references: Sequence[str]) -> float:
    """1.0 where a reference is the same text after `squad_normalise`; the fair rule for TriviaQA too."""
    return float(squad_normalise(prediction) in {squad_normalise(reference) for reference in references})


def squad_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the bags of normalised words, the best over the references; 1.0 where both have none."""
    return best(_word_f1, prediction, references)


def _word_f1(first: str, second: str) -> float:
    bags = [Counter(squad_normalise(text).split()) for text in (first, second)]
    both = bags[0].total() + bags[1].total()
    if not bags[0] or not bags[1]:
        return float(both == 0)
    return 2 * (bags[0] & bags[1]).total() / both


_NUMBER = re.compile(r"-?[0-9.,]+")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_GSM8K_IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")


def number(text: str) -> Decimal | None:
    """The value of digits with thousands commas, a dollar sign or a full stop at the end; None for others."""
    try:
        found = Decimal(
            unicodedata.normalize("NFKC", text).strip().strip(".").replace(",", "").replace("$", "")
        )
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def last_integer(text: str) -> int | None:
    """The whole number that MGSM's published rule finds: the last run of digits, points and commas.

    Points at its ends and all commas are dropped; None for a fraction, and for what is no number ("1.2.3",
    where the published code stopped with an error).
    """
    runs = _NUMBER.findall(text)
    found = number(runs[-1]) if runs else None
    return int(found) if found is not None and found == found.to_integral_value() else None


def mgsm_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the last whole number of the text is the last one of a reference."""
    found = last_integer(prediction)
    return float(found is not None and found in {last_integer(reference) for reference in references})


def gsm8k_strict(prediction: str, references: Sequence[str]) -> float:
    """GSM8K as published (strict-match): the first `#### n`, compared as text without commas and dollars."""
    found = _STRICT.search(prediction)
    answer = found[1].strip() if found else INVALID
    return harness_exact_match(answer, references, ignore_case=True, ignore=_GSM8K_IGNORED)


def gsm8k_flexible(prediction: str, references: Sequence[str]) -> float:
    """lm-evaluation-harness's flexible-extract: the last thing that looks like a number, wherever it is."""
    found = _FLEXIBLE.findall(prediction)
    answer = found[-1].strip() if found else INVALID
    return harness_exact_match(answer, references, ignore_case=True, ignore=_GSM8K_IGNORED)


def last_number_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the numbers are equal as numbers: after `####` if the text has it, else the last one.

    The corrected rule for GSM8K and MGSM: 72, 72.0, "72." and "$72" are the same.
    """
    wanted = {_meant_number(reference) for reference in references} - {None}
    return float(_meant_number(prediction) in wanted)


def _meant_number(text: str) -> Decimal | None:
    text = unicodedata.normalize("NFKC", text)
    marked = _STRICT.search(text.replace("#### $", "#### "))
    if marked:
        return number(marked[1])
    values = [number(run) for run in _FLEXIBLE.findall(text)]
    return next((value for value in reversed(values) if value is not None), None)


_BBH = re.compile(r"(?<=the answer is )(.*)(?=.)")
_BBH_MARK = re.compile(r"the answer is:?\s*", re.IGNORECASE)


def bbh_answer(output: str) -> str:
    """BBH's answer as published: what follows "the answer is " up to the last character of its line.

    That character is meant to be the full stop; where a model writes none, the answer loses its last letter.
    """
    found = _BBH.findall(output)
    return found[0].strip() if found else INVALID


def bbh_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where `bbh_answer` equals a reference."""
    return float(bbh_answer(prediction) in references)


def bbh_match_fair(prediction: str, references: Sequence[str]) -> float:
    """As `bbh_match`, but one full stop may be there or not, and case and outer spaces don't matter."""
    parts = _BBH_MARK.split(prediction, maxsplit=1)
    if len(parts) == 1:
        return 0.0
    answer = parts[1].split("\n")[0].strip().removesuffix(".").strip().casefold()
    return float(answer in {reference.strip().removesuffix(".").casefold() for reference in references})
