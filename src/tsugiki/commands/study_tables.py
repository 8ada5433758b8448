"""A study as text for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tsugiki.commands.terminal import columns, one_line
from tsugiki.report.formatting import UNKNOWN, fixed, interval, p_value, percent, plural, signed

if TYPE_CHECKING:
    from tsugiki.study.analysis import FactorStudy, ScalingStudy
    from tsugiki.study.findings import Finding
    from tsugiki.study.heldout import Checked
    from tsugiki.study.laws import Law
    from tsugiki.study.mixture import Mixture
    from tsugiki.study.observational import Prediction
    from tsugiki.study.regression import Fit

_EACH_KIND = 6
_NAME = 34
_MOST_LEFT = 60


def findings(found: Sequence[Finding]) -> Iterator[str]:
    """A line each, at most six of a kind."""
    shown: Counter[str] = Counter()
    for one in found:
        shown[one.kind] += 1
        if shown[one.kind] <= _EACH_KIND:
            where = " · ".join(part for part in (one.model, one.benchmark) if part)
            value = "" if one.value is None or one.kind == "average" else f" {one.value:.4g}"
            yield f"  {one.kind:<9} " + one_line(f"{where}{value}: {one.message}" if where else one.message)
    for kind, count in sorted(shown.items()):
        if count > _EACH_KIND:
            yield f"  {kind:<9} and {count - _EACH_KIND} more (--json has all)"


def factors(study: FactorStudy) -> Iterator[str]:
    """The components, their loadings and the extremes among models."""
    found, stable, parallel = study.factors, study.stability, study.parallel
    kept = plural(parallel.kept, "component")
    yield f"{kept} of {len(found.eigenvalues_B)} exceed noise (parallel analysis, {parallel.draws} draws)."
    yield ""
    rows = [("", "eigenvalue", "noise 95 %", "share", "95 %", "cosine", "2.5 %", "")]
    for k, name in enumerate(study.names):
        rows.append((
            name,
            fixed(float(found.eigenvalues_B[k]), 2),
            fixed(float(parallel.threshold_B[k]), 2),
            percent(float(found.explained_B[k]), 2),
            f"{percent(float(stable.share_low_K[k]))} to {percent(float(stable.share_high_K[k]))}",
            fixed(float(stable.cosine_median_K[k])),
            fixed(float(stable.cosine_low_K[k])),
            "" if k < parallel.kept else "not told from noise",
        ))  # fmt: skip
    yield from columns(rows, right=(1, 2, 3, 4, 5, 6), indent="  ")
    yield f"  share's interval and cosine (of a draw's component with that of all) over {stable.draws} draws"
    yield ""
    yield from _loadings(study)
    yield ""
    for k, name in enumerate(study.names):
        order = sorted(
            zip(found.scores_MK[:, k].tolist(), study.table.models, strict=True),
            key=lambda one: (-one[0], one[1]),
        )
        high = ", ".join(f"{one_line(model, 40)} {signed(score, 2)}" for score, model in order[:3])
        low = ", ".join(f"{one_line(model, 40)} {signed(score, 2)}" for score, model in order[-3:])
        yield f"  {name}: {high} ... {low}"


def _loadings(study: FactorStudy) -> Iterator[str]:
    rotated = study.rotated
    titles = ["loadings", *study.names]
    if rotated is not None:
        titles += [f"{rotated.method} {k + 1}" for k in range(rotated.loadings_BK.shape[1])]
    rows = [titles]
    for b, name in enumerate(study.table.benchmarks):
        values = [float(value) for value in study.factors.loadings_BK[b, : study.shown]]
        if rotated is not None:
            values += [float(value) for value in rotated.loadings_BK[b]]
        rows.append([one_line(name, _NAME), *(fixed(value, 2) for value in values)])
    yield from columns(rows, right=range(1, len(titles)), indent="  ")
    if rotated is not None and rotated.method == "promax":
        pairs = [
            f"{a + 1} and {b + 1} {fixed(float(rotated.factors_KK[a, b]), 2)}"
            for a in range(len(rotated.factors_KK))
            for b in range(a)
        ]
        yield f"  factors correlate: {', '.join(pairs)}"


def correlations(study: FactorStudy, most: int = 8) -> Iterator[str]:
    """The highest and lowest correlations with their intervals."""
    found = study.correlations
    pairs = [
        (found.pair(a, b), a, b) for place, a in enumerate(found.benchmarks) for b in found.benchmarks[:place]
    ]
    known = sorted((one for one in pairs if math.isfinite(one[0][0])), key=lambda one: -one[0][0])
    ends = known if len(known) <= 2 * most else [*known[:most], *known[-most:]]
    yield f"Correlations, the highest and the lowest of {len(known)} (Fisher, {found.confidence:.0%}):"
    rows = [
        (
            f"{one_line(b, _NAME)} – {one_line(a, _NAME)}",
            fixed(one[0]),
            interval(one[1], one[2], 2),
            f"n {one[3]}",
        )
        for one, a, b in ends
    ]
    yield from columns(rows, right=(1, 2, 3), indent="  ")


_TITLES = ("n", "R²", "a decade", "error", "clustered", "p", "wild p")


def _coefficient(fit: Fit, place: int) -> tuple[str, ...]:
    return (
        signed(float(fit.coefficient_P[place])),
        fixed(float(fit.error_P[place])),
        _known(float(fit.clustered_P[place])),
        p_value(float(fit.p_P[place])),
        p_value(_finite(float(fit.wild_p_P[place]))),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(value: float) -> str:
    return fixed(_finite(value))


def scaling(study: ScalingStudy) -> Iterator[str]:
    """One language at a time, all at once, families left out, and assumed shares."""
    fitted = study.scaling
    families = len(set(fitted.families))
    yield (
        f"Scaling: {len(fitted.models)} models of {families} families; log10 of 6ND; "
        "clustered: CR1 by family; wild p: wild cluster bootstrap."
    )
    rows: list[tuple[str, ...]] = [("", "", *_TITLES[:1], "r", "95 %", *_TITLES[1:])]
    rows += [
        (one_line(one.outcome, _NAME), one.language, str(one.fit.n), fixed(one.r),
         interval(one.low, one.high, 2), fixed(one.fit.r2), *_coefficient(one.fit, 1))
        for one in (*fitted.singles, *fitted.totals)
    ]  # fmt: skip
    yield from columns(rows, right=range(2, 11), indent="  ")
    for model, said in (
        ("compute", "All languages at once"),
        ("continued", "and a dummy of continual pre-training"),
        ("apart", "Parameters and tokens apart"),
    ):
        joint = [one for one in fitted.joints if one.model == model]
        if joint:
            yield ""
            yield f"{said}:"
            lines: list[tuple[str, ...]] = [("", "", *_TITLES)]
            for each in joint:
                lines += [
                    (one_line(each.outcome, _NAME), name, str(each.fit.n), fixed(each.fit.r2),
                     *_coefficient(each.fit, place))
                    for place, name in enumerate(each.fit.names)
                    if place
                ]  # fmt: skip
            yield from columns(lines, right=range(2, 9), indent="  ")
    yield ""
    yield from _robust(study)


def _robust(study: ScalingStudy) -> Iterator[str]:
    left = [one for one in study.scaling.left if one.outcome.startswith("PC")]
    if left:
        yield "Families left out, and families alone:"
        rows = [
            (
                one.outcome,
                one.language,
                f"{one.kind} {one_line(one.family, _NAME)}",
                f"n {one.n}",
                f"r {_known(one.r)}",
            )
            for one in left[:_MOST_LEFT]
        ]
        yield from columns(rows, right=(3, 4), indent="  ")
        if len(left) > _MOST_LEFT:
            yield f"  and {len(left) - _MOST_LEFT} more (--json has all)"
        yield ""
    tested = study.sensitivity
    if tested is None:
        yield "No shares are assumed: nothing to vary (mark rows X in the provenance, or give --shares)."
        return
    source = "--shares" if tested.source == "file" else "rows flagged X"
    yield f"Assumed shares, {tested.draws} draws ({source}; {plural(len(tested.models), 'model')}):"
    spreads = [("", "", "r as stated", "median", "95 % of draws")]
    spreads += [
        (
            one_line(one.outcome, _NAME),
            one.language,
            _known(one.stated),
            _known(one.median),
            interval(one.low, one.high),
        )
        for one in tested.spreads
    ]
    yield from columns(spreads, right=(2, 3, 4), indent="  ")


def predictions(found: Sequence[Prediction], failed: Sequence[str]) -> Iterator[str]:
    """Held-out errors of each target."""
    first = found[0]
    yield (
        f"{first.components} factors of the others; fitted on {int(first.train.sum())} models up to "
        f"{first.cutoff:.3g} FLOPs, tried on {int((~first.train).sum())} beyond. Errors are mean absolute."
    )
    rows = [("", "fitted", "held out", "r", "R²", "compute alone", "mean alone")]
    rows += [
        (one_line(one.target, _NAME), fixed(one.error_train), fixed(one.error_held), _known(one.r_held),
         _known(one.r2_held), _known(one.compute_error), fixed(one.baseline))
        for one in found
    ]  # fmt: skip
    yield from columns(rows, right=range(1, 7), indent="  ")
    better = sum(
        one.error_held < min(one.compute_error, one.baseline)
        for one in found
        if math.isfinite(one.compute_error)
    )
    yield f"  better than compute alone and the mean alone on {better} of {len(found)}"
    for line in failed:
        yield f"  not predicted: {one_line(line)}"


def law(name: str, fitted: Law, ends: Mapping[str, tuple[float, float]], n: int) -> Iterator[str]:
    """The parameters of a law."""
    agree = f"{fitted.found_again} of {fitted.starts} starts agree"
    yield f"{one_line(name)}: {fitted.form} law on {n} observations; {agree}"
    rows = [
        (key, f"{value:.4g}", f"{ends[key][0]:.4g} to {ends[key][1]:.4g}" if key in ends else UNKNOWN)
        for key, value in fitted.parameters.items()
    ]
    yield from columns([("", "", "95 %"), *rows], right=(1, 2), indent="  ")
    if fitted.left_out:
        yield f"  {' and '.join(fitted.left_out)} does not vary in the runs: its term is part of E"
    if fitted.at_bounds:
        yield f"  {', '.join(fitted.at_bounds)} at the bound of the search: the runs do not tell it"


def held_out(every: Iterable[Checked]) -> Iterator[str]:
    """Held-out checks."""
    for one in every:
        yield f"  {one.kind}: R² {_known(one.r2)}, mean error {percent(one.error, 2)} of the loss"
        rows = [
            (part.what, f"n {part.n}", f"R² {_known(part.r2)}", percent(part.error, 2)) for part in one.parts
        ]
        yield from columns(rows, right=(1, 2, 3), indent="    ")
        for line in one.not_fitted:
            yield f"    not fitted: {one_line(line)}"


def mixture(found: Mixture, names: tuple[str, str]) -> Iterator[str]:
    """The chosen share in words."""
    choice = found.choice
    ends = "" if math.isnan(found.low) else f" (95 % {percent(found.low)} to {percent(found.high)})"
    yield f"Share of the target language: {percent(choice.share)}{ends}"
    yield f"  {one_line(names[0])} {fixed(choice.target, 4)}"
    yield f"  {one_line(names[1])} {fixed(choice.other, 4)}, allowed {fixed(choice.budget, 4)}"
    yield (
        "  the budget is what stops it"
        if choice.binding
        else "  the budget is not reached: more would not help the target"
    )
    if choice.extrapolated:
        yield "  outside of the ratios that were run: try it before you trust it"
    if found.infeasible:
        yield f"  in {found.infeasible} of {found.draws} draws no share met the budget: not in the interval"
