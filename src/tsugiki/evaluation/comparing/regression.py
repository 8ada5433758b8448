"""Did a language get worse? A verdict that tells "no worse" from "not enough questions to know".

That no difference was seen proves nothing: it may be there. So "not worse" is claimed only where the
interval's unfavourable end is within a margin (a test of non-inferiority at half of 1 - confidence; ICH E9,
1998, section 3.3.2), "worse" or "better" where the difference is seen after adjustment, and "unclear" is
said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tsugiki.evaluation.comparing.judging import BITS_OF_INTEREST, Settings, rounded
from tsugiki.languages import load_pack, pack_codes

Row = Mapping[str, Any]


def regressions(tasks: Sequence[Row], averages: Sequence[Row], settings: Settings) -> list[dict[str, Any]]:
    """A verdict for each language and model against the baseline.

    From the average over a language's tasks, or its only task; for text, from each dataset's bits per byte.
    """
    found = []
    averaged = {entry["language"]: entry for entry in averages if entry["language"]}
    for entry in averaged.values():
        found += [_scores(entry, f"{len(entry['tasks'])} tasks", pair, settings) for pair in entry["pairs"]]
    for task in tasks:
        if task["by_byte"]:
            found += [_bits(task, pair, settings) for pair in task["pairs"]]
        elif task["language"] not in averaged and not task["lower_is_better"]:
            what = f"{task['task']} on {task['dataset']}"
            found += [_scores(task, what, pair, settings) for pair in task["pairs"]]
    return [one for one in found if one["baseline"] == settings.baseline and one["language"]]


def _scores(entry: Row, what: str, pair: Row, settings: Settings) -> dict[str, Any]:
    verdict = _verdict(pair, settings.margin, lower_is_better=False)
    figures = f"{100 * pair['difference']:+.1f} points"
    if pair["low"] is not None:
        figures += (
            f", {settings.confidence:.0%} interval {100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}"
        )
    size = f"{100 * settings.margin:g} points"
    return _entry(entry, what, pair, margin=settings.margin, verdict=verdict, words=(figures, size))


def _bits(task: Row, pair: Row, settings: Settings) -> dict[str, Any]:
    margin = BITS_OF_INTEREST * abs(task["by_model"][pair["baseline"]]["value"])
    verdict = _verdict(pair, margin, lower_is_better=True)
    figures = f"{pair['difference']:+.3f} bits per byte"
    if pair["low"] is not None:
        figures += f", {settings.confidence:.0%} interval {pair['low']:+.3f} to {pair['high']:+.3f}"
    what = f"text of {task['dataset']}"
    words = (figures, f"{BITS_OF_INTEREST:.0%} of its bits")
    return _entry(task, what, pair, margin=margin, verdict=verdict, words=words)


def _language(code: str) -> str:
    """What a language is called, where there is a pack of it."""
    return load_pack(code).name if code in pack_codes() else code


def _verdict(pair: Row, margin: float, *, lower_is_better: bool) -> str:
    if pair["verdict"] in {"better", "worse"}:
        return str(pair["verdict"])
    if pair["low"] is None:
        return "unclear"
    unfavourable = -pair["high"] if lower_is_better else pair["low"]
    return "not worse" if unfavourable > -margin else "unclear"


def _entry(
    entry: Row, what: str, pair: Row, *, margin: float, verdict: str, words: tuple[str, str]
) -> dict[str, Any]:
    figures, size = words
    name, base, language = pair["model"], pair["baseline"], _language(entry["language"])
    sentence = {
        "worse": f"{name} got worse than {base} in {language}, {what}: {figures}.",
        "better": f"{name} got better than {base} in {language}, {what}: {figures}.",
        "not worse": f"{name} is not worse than {base} by {size} or more in {language}, {what}: {figures}.",
        "unclear": f"Whether {name} got worse than {base} by {size} in {language} can't be told from "
        f"{what}: {figures}.",
    }[verdict]
    return {
        "language": entry["language"],
        "what": what,
        "baseline": base,
        "model": name,
        "difference": pair["difference"],
        "low": pair["low"],
        "high": pair["high"],
        "margin": rounded(margin),
        "verdict": verdict,
        "sentence": sentence,
    }
