"""What a mixture of experts was made from, and the proofs of what it is."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.figures.figure import Figure, Words, full_width, model_legend
from tsugiki.report.figures.lines import Series, line_chart
from tsugiki.report.formatting import exact, fixed, percent, scientific
from tsugiki.report.run import Palette, Run, Stage
from tsugiki.report.sections.vocabulary import Proof, transformers_proof

_HEIGHT = 260.0
_FEWEST_LAYERS = 2
_CURVES = (("cosine_dense", "to the dense model", "m0"), ("cosine_experts", "between experts", "m1"))


@dataclass(frozen=True)
class Comparison:
    """A figure that theory foretells: its name, what theory says, and what was measured."""

    what: str
    theory: str
    measured: str


@dataclass(frozen=True)
class UpcyclingView:
    """One upcycle stage."""

    stage: Stage
    summary: str
    proofs: tuple[Proof, ...]
    comparisons: tuple[Comparison, ...]
    figure: Figure | None


def upcyclings(run: Run, _palette: Palette) -> list[UpcyclingView]:
    """A view of every finished upcycle stage."""
    return [
        UpcyclingView(
            stage=stage,
            summary=_summary(stage.facts),
            proofs=tuple(_proofs(stage.facts)),
            comparisons=tuple(_comparisons(stage.facts)),
            figure=_figure(stage),
        )
        for stage in run.of_kind("upcycle")
    ]


def _summary(found: Row) -> str:
    experts, chosen = facts.number(found, "experts"), facts.number(found, "experts_per_token")
    ratio, grain = facts.number(found, "ratio"), facts.number(found, "granularity")
    words = [facts.text(found, "method") or "method not recorded"]
    if ratio is not None:
        words.append(f"{percent(ratio)} of the neurons changed")
    words.append(f"{exact(experts)} experts, {exact(chosen)} a token")
    if grain is not None and grain > 1:
        words.append(f"each a slice of 1/{exact(grain)}")
    slices = facts.number(found, "shared_expert", "slices")
    if slices is not None:
        whole = facts.text(facts.section(found, "shared_expert"), "made_as") == "copy"
        held = "the whole feed-forward" if whole else f"{exact(slices)} of {exact(grain)} slices"
        words.append(f"and a shared expert of {held}")
    return ", ".join(words)


def _proofs(found: Row) -> list[Proof]:
    proofs = []
    difference, tolerance = (
        facts.number(found, "function", name) for name in ("max_abs_logit_difference", "tolerance")
    )
    if difference is not None and tolerance is not None:
        figure = Markup("largest difference of logits {}, allowed {}").format(
            scientific(difference), scientific(tolerance)
        )
        what = "With every neuron kept, it computes what the dense model does"
        proofs.append(Proof(what, figure, difference <= tolerance))
    share = facts.number(found, "measured", "intact_share")
    bounds = found.get("intact_bounds")
    if share is not None and isinstance(bounds, list) and len(bounds) == 2:  # noqa: PLR2004 (least, most)
        least, most = (facts.number({"bound": bound}, "bound") for bound in bounds)
        if least is not None and most is not None:
            held = least - 1e-9 <= share <= most + 1e-9
            proofs.append(
                Proof("Neurons that are to the bit the dense model's", escape(percent(share)), held)
            )
    shared = facts.number(found, "measured", "shared_intact")
    if shared is not None:
        what = "Neurons of the shared expert that are to the bit the dense model's"
        proofs.append(Proof(what, escape(percent(shared)), shared == 1))
    proofs += transformers_proof(facts.section(found, "transformers_parity"))
    nats = facts.number(found, "result", "divergence_nats")
    if nats is not None:
        what = "How far the new model's predictions are from the dense one's, before any training"
        proofs.append(Proof(what, Markup("{} nats a token").format(scientific(nats)), None))
    return proofs


def _comparisons(found: Row) -> list[Comparison]:
    named = (
        ("kept", "intact_share", "Share of neurons as they were"),
        ("kept", "cosine_dense", "Cosine of an expert's output with the dense one's"),
        ("alike", "cosine_experts", "Cosine between two experts"),
        ("norm", "norm", "Size of the layer's output, relative to the dense one's"),
    )
    return [
        Comparison(what, fixed(facts.number(found, "expected", theory)), fixed(measured))
        for theory, name, what in named
        if (measured := facts.number(found, "measured", name)) is not None
    ]


def _figure(stage: Stage) -> Figure | None:
    """Both cosines by layer; None where there are too few layers to draw a line."""
    series = []
    for name, words, css in _CURVES:
        points = [
            (layer, value)
            for row in facts.rows(stage.facts, "layers")
            if (layer := facts.number(row, "layer")) is not None
            and (value := facts.number(row, name)) is not None
        ]
        if len(points) >= _FEWEST_LAYERS:
            series.append(Series(words, css, tuple(points), marked=True))
    if not series:
        return None
    return full_width(
        f"upcycling-{stage.index}",
        Words(
            "How alike the experts are, by layer",
            "Cosine of the outputs of an expert and the dense feed-forward, and of two experts, on the same "
            "inputs. 1 is the same function up to its size; experts that are all alike learn the same.",
            "; ".join(
                f"{one.name}: " + ", ".join(f"layer {x:g} {fixed(y)}" for x, y in one.points)
                for one in series
            ),
        ),
        lambda canvas: line_chart(canvas, series, ("layer", "cosine"), _HEIGHT),
        model_legend([(one.name, one.css) for one in series]),
    )
