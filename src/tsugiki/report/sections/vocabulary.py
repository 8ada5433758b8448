"""What the extended vocabulary saves, and the proofs that it broke nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.figures.bars import Bar, BarRow, bar_chart
from tsugiki.report.figures.figure import Figure, Words, bar_legend, full_width
from tsugiki.report.formatting import exact, fixed, percent, scientific, signed_percent
from tsugiki.report.languages import language_name
from tsugiki.report.run import Palette, Run, Stage
from tsugiki.report.sections.vocabulary_curve import savings_curve
from tsugiki.report.text import clip

_MOST_EXAMPLES = 24
_MOST_DOMAINS = 14


@dataclass(frozen=True)
class Saving:
    """Tokens before and after on the texts of one domain."""

    language: str
    domain: str
    characters: float
    bytes: float | None
    before: float
    after: float

    @property
    def change(self) -> float:
        """The relative change of the number of tokens."""
        return self.after / self.before - 1


@dataclass(frozen=True)
class Proof:
    """Something that was checked: what, the figure, and whether it held (None: no bound was given)."""

    what: str
    figure: Markup
    held: bool | None


@dataclass(frozen=True)
class VocabularyView:
    """One vocabulary stage."""

    stage: Stage
    base: str
    adapted: str
    savings: tuple[Saving, ...]
    totals: tuple[Saving, ...]
    figure: Figure | None
    curve: Figure | None
    proofs: tuple[Proof, ...]
    examples: tuple[str, ...]


def vocabularies(run: Run, palette: Palette) -> list[VocabularyView]:
    """A view of every finished vocabulary stage."""
    return [_view(run, stage, palette) for stage in run.of_kind("vocabulary")]


def _view(run: Run, stage: Stage, palette: Palette) -> VocabularyView:
    kinds = {one.name: one.kind for one in run.stages}
    base = next((name for name in stage.inputs if kinds.get(name) not in {"corpus", None}), "")
    heirs = [one.name for one in run.stages if one.kind == "train" and stage.name in run.lineage(one.name)]
    adapted = heirs[0] if heirs else stage.name
    savings = _savings(stage, run.language)
    return VocabularyView(
        stage=stage,
        base=base,
        adapted=adapted,
        savings=savings,
        totals=_totals(savings),
        figure=_figure(stage, savings, palette.css(base), palette.css(adapted)),
        curve=savings_curve(stage, palette.css(adapted)),
        proofs=tuple(_proofs(stage)),
        examples=tuple(clip(text, 40) for text in _examples(stage)[:_MOST_EXAMPLES]),
    )


def _savings(stage: Stage, language: str) -> tuple[Saving, ...]:
    found = []
    for row in facts.rows(stage.facts, "savings"):
        characters, size = facts.number(row, "characters"), facts.number(row, "bytes")
        before, after = facts.number(row, "tokens_before"), facts.number(row, "tokens_after")
        if characters and before and after is not None:
            found.append(
                Saving(
                    facts.text(row, "language"), facts.text(row, "domain"), characters, size, before, after
                )
            )
    # the target language first, then by size
    found.sort(key=lambda s: (s.language != language, s.language, -s.characters, s.domain))
    return tuple(found)


def _totals(savings: Sequence[Saving]) -> tuple[Saving, ...]:
    languages = list(dict.fromkeys(saving.language for saving in savings))
    return tuple(_total(language, [s for s in savings if s.language == language]) for language in languages)


def _total(language: str, parts: Sequence[Saving]) -> Saving:
    return Saving(
        language,
        f"all {language_name(language)}",
        sum(s.characters for s in parts),
        sum(facts.known(*(s.bytes for s in parts))) or None,
        sum(s.before for s in parts),
        sum(s.after for s in parts),
    )


def _figure(stage: Stage, savings: Sequence[Saving], before: str, after: str) -> Figure | None:
    if not savings:
        return None
    languages = list(dict.fromkeys(s.language for s in savings))
    most = max(3, _MOST_DOMAINS // len(languages))
    shown = [s for language in languages for s in [s for s in savings if s.language == language][:most]]
    rows = [
        BarRow(
            f"{s.domain} ({s.language})" if s.language else s.domain,
            (
                Bar(s.before / s.characters, before, fixed(s.before / s.characters, 2)),
                Bar(
                    s.after / s.characters,
                    after,
                    f"{fixed(s.after / s.characters, 2)} ({signed_percent(s.change, 0)})",
                ),
            ),
        )
        for s in shown
    ]
    description = "; ".join(
        f"{s.domain}: {fixed(s.before / s.characters, 2)} before, {fixed(s.after / s.characters, 2)} after"
        for s in shown
    )
    return full_width(
        f"savings-{stage.index}",
        Words(
            "Tokens per character, before and after",
            "How many tokens the model needs for a character of text from each site. Fewer tokens make "
            "reading and writing cheaper, and let more text fit into the context window.",
            description,
        ),
        lambda canvas: bar_chart(canvas, rows, "tokens per character"),
        bar_legend([("tokenizer before", before), ("tokenizer after", after)]),
    )


def _proofs(stage: Stage) -> list[Proof]:
    found = stage.facts
    proofs = _text_proofs(found)
    change = facts.number(found, "old_text_parity", "max_abs_logit_difference")
    if change is not None:
        texts = facts.number(found, "old_text_parity", "texts")
        tolerance = facts.number(found, "old_text_parity", "tolerance")
        figure = Markup("largest difference of logits {} on {} texts{}").format(
            scientific(change), exact(texts), _part_of_layers(facts.section(found, "old_text_parity"))
        )
        what = "The old tokens give the same logits as before the extension"
        proofs.append(Proof(what, figure, change <= tolerance if tolerance is not None else None))
    proofs += transformers_proof(facts.section(found, "transformers_parity"))
    if facts.number(found, "unreachable") is not None:
        unreachable = facts.number(found, "unreachable")
        figure = Markup("{} unreachable").format(exact(unreachable))
        proofs.append(Proof("Every new token can be reached", figure, unreachable == 0))
    single = facts.number(found, "coverage", "occurrences_single_token_after")
    if single is not None:
        before = facts.number(found, "coverage", "occurrences_single_token_before")
        figure = Markup("{} → {}").format(percent(before), percent(single))
        proofs.append(Proof("Characters of the text that are one token on their own", figure, None))
    pieces = facts.number(found, "coverage", "fragment_tokens_after")
    if pieces is not None:
        before = facts.number(found, "coverage", "fragment_tokens_before")
        figure = Markup("{} → {}").format(percent(before), percent(pieces))
        proofs.append(Proof("Tokens of running text that are only part of a character", figure, None))
    proofs += _norm_proofs(found)
    if facts.number(found, "unused_share") is not None:
        share = escape(percent(facts.number(found, "unused_share")))
        proofs.append(Proof("New tokens that the measured texts never use", share, None))
    return proofs


def _text_proofs(found: Row) -> list[Proof]:
    """What was seen on the documents: round trips, SentencePiece's own ids, text without new tokens."""
    proofs = []
    documents = facts.number(found, "round_trip", "documents")
    if documents is not None:
        failures = facts.number(found, "round_trip", "failures")
        figure = Markup("{} failures in {} documents").format(exact(failures), exact(documents))
        figure += _also(found, "round_trip", "all_documents", "there are: an even sample was checked")
        figure += _also(found, "round_trip", "altered_by_base", "come back as the base gives them back")
        figure += _also(found, "round_trip", "unknown", "hold characters that the tokenizer has not")
        proofs.append(Proof("Encoding and decoding gives the text back", figure, failures == 0))
    compared = facts.number(found, "sentencepiece", "documents")
    if compared is not None:
        differences = facts.number(found, "sentencepiece", "differences")
        figure = Markup("{} differences in {} documents").format(exact(differences), exact(compared))
        figure += _also(found, "sentencepiece", "ties", "where two ways score the same but for rounding")
        what = "SentencePiece with tokenizer.model gives the ids of tokenizer.json"
        proofs.append(Proof(what, figure, differences == 0))
    old = facts.number(found, "old_ids", "documents")
    if old:
        same = facts.number(found, "old_ids", "same")
        is_promised = facts.section(found, "old_ids").get("promised") is True
        figure = Markup("{} of {} documents").format(exact(same), exact(old))
        if not is_promised:
            figure += Markup(", not promised: all scores were estimated anew")
        what = "Text that uses no new token is cut as before the extension"
        proofs.append(Proof(what, figure, same == old if is_promised else None))
    return proofs


def _also(found: Row, section: str, name: str, words: str) -> Markup:
    """Further words with a count that is mentioned only where it is not 0."""
    count = facts.number(found, section, name)
    return Markup(", {} {}").format(exact(count), words) if count else Markup("")


def _norm_proofs(found: Row) -> list[Proof]:
    """Smallest, median and largest norm of new and old rows, of each matrix that was recorded."""
    named = {"new_row_norms": "embedding", "new_head_row_norms": "output"}
    proofs = []
    for key, matrix in named.items():
        norms = [_spread(facts.section(found, key), name) for name in ("quantiles", "old_quantiles")]
        if all(norms):
            figure = Markup("{}, old rows {}").format(*norms)
            what = f"Norm of the new {matrix} rows: smallest, median, largest"
            proofs.append(Proof(what, figure, None))
    return proofs


def _spread(norms: Row, name: str) -> str:
    """The first, middle and last of the stored quantiles (minimum, quartiles, maximum); "" without them."""
    stored = norms.get(name)
    if not isinstance(stored, list) or not stored:
        return ""
    shown = [facts.number({"norm": stored[place]}, "norm") for place in (0, len(stored) // 2, -1)]
    return "" if None in shown else ", ".join(fixed(norm) for norm in shown)


def transformers_proof(parity: Row) -> list[Proof]:
    """The check of our logits against those of Hugging Face transformers, if it was recorded."""
    difference, tolerance = facts.number(parity, "max_abs_difference"), facts.number(parity, "tolerance")
    if difference is None:
        return []
    bound = Markup(", allowed {}").format(scientific(tolerance)) if tolerance is not None else Markup("")
    return [
        Proof(
            "Hugging Face transformers loads the model and gives the same logits",
            Markup("largest difference {}{}{}").format(
                scientific(difference), bound, _part_of_layers(parity)
            ),
            difference <= tolerance if tolerance is not None else None,
        )
    ]


def _part_of_layers(parity: Row) -> str:
    """What to say where memory did not hold all layers of the two models that were compared."""
    layers, all_layers = facts.number(parity, "layers"), facts.number(parity, "all_layers")
    if layers is None or all_layers is None or layers >= all_layers:
        return ""
    return f" (the first {layers:g} of {all_layers:g} layers, as many as memory held)"


def _examples(stage: Stage) -> list[str]:
    """The new tokens that the measured texts use most; characters on their own come after real pieces."""
    named = [facts.text(row, "text") for row in facts.rows(stage.facts, "examples")]
    tokens = [token for token in [*named, *facts.texts(stage.facts, "examples")] if token.strip()]
    return sorted(tokens, key=lambda token: len(token.strip()) == 1)
