"""Pages of laws, mixtures and predictions: what they show, names as text, both widths drawn."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tsugiki.cli import app
from tsugiki.study.heldout import bootstrap_laws
from tsugiki.study.laws import fit_law
from tsugiki.study.runs import read_runs

HOSTILE = "bpb_<script>alert(1)</script>"


@pytest.fixture(scope="module")
def runs_file(tmp_path_factory, mixture_laws):
    """Losses of 36 runs by the planted laws, with noise of 0.2 %; a hostile name of a column."""
    target, other = mixture_laws
    rng = np.random.default_rng(0)
    lines = [f"N_billion,D_B,ratio,{HOSTILE},bpb_en"]
    for n in (0.5, 1.0, 3.0):
        for r in (0.1, 0.3, 0.6, 0.9):
            for d in (2, 5, 10):
                losses = (target.loss(n * 1e9, d * 1e9, r), other.loss(n * 1e9, d * 1e9, 1 - r))
                ja, en = (float(one) * np.exp(0.002 * rng.standard_normal()) for one in losses)
                lines.append(f"{n},{d},{r},{ja},{en}")
    path = tmp_path_factory.mktemp("pages") / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def page(capsys, path, *words):
    with pytest.raises(SystemExit) as ended:
        app([*words, "--html", str(path)])
    assert ended.value.code in {0, None}
    assert f"Page: {path}" in capsys.readouterr().out
    return path.read_text()


def check_page(text):
    """No script runs, nothing is loaded, every figure is drawn for a screen and for a phone."""
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    wide, narrow = (len(re.findall(f'id="[a-z0-9-]+-{name}', text)) for name in ("wide", "narrow"))
    assert wide == narrow > 0
    assert not re.search(r"\bnan\b|\binf\b", text)


def test_law_page_shows_curves_held_out_runs_and_residuals(capsys, tmp_path, runs_file) -> None:
    words = ("study", "law", str(runs_file), "--loss", HOSTILE, "--starts", "2", "--draws", "4")
    text = page(capsys, tmp_path / "law.html", *words)
    check_page(text)
    assert "&lt;script&gt;" in text
    for part in ("curves", "parameters", "held-out", "residuals"):
        assert f'id="{part}"' in text
    # 36 runs in residuals, each held out once, in both widths; a band a size in both figures of curves
    assert len(re.findall(r"<title>ratio 0\.\d: seen", text)) == 2 * 36
    assert len(re.findall(r"<polygon[^>]*fill-opacity", text)) >= 2 * 2 * 3
    assert text == page(capsys, tmp_path / "again.html", *words)


def test_law_page_without_bootstrap_or_ratios_says_so(capsys, tmp_path, runs_file) -> None:
    words = ("study", "law", str(runs_file), "--loss", "bpb_en", "--form", "chinchilla", "--starts", "2")
    text = page(capsys, tmp_path / "law.html", *words, "--draws", "0")
    check_page(text)
    assert "no bands" in text


def test_mixture_page_marks_the_optimum_on_both_curves(capsys, tmp_path, runs_file) -> None:
    words = ["study", "mixture", str(runs_file), "--target", HOSTILE, "--other", "bpb_en"]
    words += ["--parameters", "3B", "--tokens", "30B", "--starts", "2", "--draws", "4", "--allow", "0.01"]
    text = page(capsys, tmp_path / "mix.html", *words)
    check_page(text)
    with pytest.raises(SystemExit):
        app([*words, "--json"])
    share = json.loads(capsys.readouterr().out)["share"]
    assert text.count(f"at a share of {100 * share:.1f}") >= 4
    assert "allowed, " in text


def test_prediction_page_shows_every_model_of_the_first_targets(capsys, tmp_path) -> None:
    text = page(
        capsys, tmp_path / "p.html", "study", "predict", "--example", "--cutoff", "2e23", "--target", "MMLU"
    )
    check_page(text)
    # 26 models with compute, against seen and as residuals, in both widths
    assert len(re.findall(r"<title>[^<]+: seen 0\.\d+, predicted", text)) == 26 * 2 * 2
    assert "14 models up to 2e+23 FLOPs fitted, 12 beyond held out" in text


def test_bands_hold_the_law_in_most_places(runs_file) -> None:
    """The bootstrap that the page draws: its 95 % band holds the planted curve's fit."""
    table = read_runs(runs_file)
    seen = table.runs("bpb_en", other=True)
    law = fit_law("dcpt", seen, starts=2)
    drawn = bootstrap_laws(law, seen, table.groups_of("bpb_en"), draws=12)
    losses = np.array([one.loss(1e9, 5e9, np.linspace(0.1, 0.9, 9)) for one in drawn])
    middle = law.loss(1e9, 5e9, np.linspace(0.1, 0.9, 9))
    assert ((losses.min(axis=0) <= middle) & (middle <= losses.max(axis=0))).mean() > 0.7
