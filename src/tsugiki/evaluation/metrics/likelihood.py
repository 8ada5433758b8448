"""What a model finds likely: the choice that it would take, and bits per byte and per character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log

from tsugiki.errors import DataError
from tsugiki.evaluation.backend import Likelihood


@dataclass(frozen=True)
class ChoiceScores:
    """Which option wins under each way to compare options of different lengths, and if that is the answer.

    picked and scores have the same keys: "sum" (ln p of the whole option; lm-evaluation-harness's acc),
    "by_byte" (its acc_norm), "by_character", "by_token". The last depends on the model's vocabulary: never
    compare two models by it. picked: index of the option, the first of equals.
    """

    picked: Mapping[str, int]
    scores: Mapping[str, float]


def choice_scores(likelihoods: Sequence[Likelihood], options: Sequence[str], answer: int) -> ChoiceScores:
    """Compare options by -ln p, in sum and per byte, character and token of the option as it was scored.

    Length is that of the option without its outer white space (as in lm-evaluation-harness, whose choices
    carry no leading space). Raises DataError where there is nothing to compare or a number is not finite.
    """
    if len(likelihoods) != len(options) or not 0 <= answer < len(options):
        raise DataError(
            f"{len(likelihoods)} likelihoods for {len(options)} options, of which number {answer} is right",
            hint="score every option of the question once",
        )
    if not all(isfinite(one.nll_nats) for one in likelihoods):
        raise DataError(
            "the likelihood of an option is not finite",
            hint="a model that gives NaN can't be compared: look at its weights",
        )
    stripped = [option.strip() for option in options]
    lengths: dict[str, list[int]] = {
        "sum": [1] * len(options),
        "by_byte": [len(option.encode("utf-8", "surrogatepass")) for option in stripped],
        "by_character": [len(option) for option in stripped],
        "by_token": [one.tokens for one in likelihoods],
    }
    picked = {
        name: min(range(len(options)), key=lambda i: likelihoods[i].nll_nats / max(length[i], 1))
        for name, length in lengths.items()
    }
    return ChoiceScores(picked, {name: float(index == answer) for name, index in picked.items()})


def bits_per_byte(nll_nats: float, byte_count: int) -> float:
    """-log2 p of a text for each of its UTF-8 bytes: comparable between models, within a language."""
    return _bits(nll_nats, byte_count, "bytes")


def bits_per_character(nll_nats: float, character_count: int) -> float:
    """-log2 p for each character (code point): Japanese has three bytes where English has one."""
    return _bits(nll_nats, character_count, "characters")


def _bits(nll_nats: float, count: int, unit: str) -> float:
    if count <= 0 or not isfinite(nll_nats):
        raise DataError(
            f"bits of a text with -ln p = {nll_nats} and {count} {unit} are not defined",
            hint="leave empty texts out; a model that gives NaN can't be scored",
        )
    return nll_nats / (log(2) * count)
