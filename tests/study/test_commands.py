"""`tsugiki study`: what a person and a program see, the page, and errors with hints."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tsugiki.cli import app
from tsugiki.errors import TsugikiError
from tsugiki.report.figures.bands import Arrow, Band, Spot, band_chart, biplot
from tsugiki.report.figures.heatmap import Matrix, heat_map
from tsugiki.report.figures.svg import NARROW, WIDE, Canvas
from tsugiki.report.study import study_page
from tsugiki.study.analysis import Asked, study_factors
from tsugiki.study.table import ScoreTable

HOSTILE = "<script>alert('x')</script>\u202e&\""
FAST = ["--draws", "60", "--share-draws", "100", "--wild-draws", "99"]


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        app(list(words))
    assert ended.value.code in {0, None}
    return capsys.readouterr().out


def test_study_of_the_example_says_all_parts(capsys, tmp_path) -> None:
    said = run(
        capsys, "study", "--example", *FAST, "--rotation", "promax", "--html", str(tmp_path / "s.html")
    )
    for part in (
        "35 models x 19 benchmarks",
        "2 components of 19 exceed noise",
        "65.15",
        "not told from noise",
        "promax 1",
        "factors correlate",
        "JHumanEval – HumanEval",
        "20 models of 5 families",
        "clustered",
        "log10 N",
        "continued",
        "without Llama 2",
        "Assumed shares",
        "stated 0.4805",
        "exactly 0",
    ):
        assert part in said, part
    page = (tmp_path / "s.html").read_text()
    assert page.count("<svg") > 10
    for section in ("findings", "components", "correlations", "scaling", "robustness"):
        assert f'id="{section}"' in page


def test_study_as_json_is_the_same_again(capsys) -> None:
    one, again = (run(capsys, "study", "--example", *FAST, "--json") for _ in range(2))
    assert one == again
    found = json.loads(one)
    assert [round(share, 4) for share in found["explained"][:3]] == [0.6515, 0.1542, 0.0697]
    assert found["components"][0]["loadings"]["MMLU"] == pytest.approx(0.97, abs=0.006)
    assert found["scaling"]["sensitivity"]["draws"] == 100
    (pair,) = [
        one for one in found["correlations"]["pairs"] if {one["a"], one["b"]} == {"HumanEval", "JHumanEval"}
    ]
    assert pair["r"] == pytest.approx(0.980, abs=5e-4)


def test_study_factors_and_scaling_stand_alone(capsys) -> None:
    factors = run(capsys, "study", "factors", "--example", "--draws", "20")
    assert "components of 19" in factors
    assert "Scaling:" not in factors
    scaling = run(capsys, "study", "scaling", "--example", *FAST)
    assert "Scaling: 20 models" in scaling
    assert "loadings" not in scaling


def test_study_predict_tries_models_that_were_not_fitted(capsys) -> None:
    found = json.loads(run(capsys, "study", "predict", "--example", "--target", "MMLU", "--json"))[
        "predictions"
    ]
    assert len(found) == 1
    held = [one for one in found[0]["models"] if one["held"]]
    assert 0 < len(held) < 26 == len(found[0]["models"])
    assert found[0]["error_held"] < 0.5 * found[0]["baseline"]
    said = run(capsys, "study", "predict", "--example", "--target", "MMLU", "--target", "JMMLU")
    assert "tried on" in said


@pytest.fixture(scope="module")
def runs_file(tmp_path_factory, mixture_laws):
    """Losses of 48 runs in two languages by the planted laws, with noise of 0.2 %."""
    target, other = mixture_laws
    noise = 0.002
    rng = np.random.default_rng(0)
    lines = ["N_billion,D_B,ratio,bpb_ja,bpb_en"]
    for n in (0.5, 1.0, 3.0):
        for r in (0.1, 0.3, 0.6, 0.9):
            for d in (2, 5, 10, 30):
                ja, en = (
                    float(law.loss(n * 1e9, d * 1e9, s)) * np.exp(noise * rng.standard_normal())
                    for law, s in ((target, r), (other, 1 - r))
                )
                lines.append(f"{n},{d},{r},{ja},{en}")
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_study_law_says_parameters_and_held_out_errors(capsys, tmp_path, runs_file) -> None:
    found = json.loads(
        run(capsys, "study", "law", runs_file, "--loss", "bpb_ja", "--starts", "2", "--draws", "5", "--json")
    )
    assert found["n"] == 48
    assert found["law"]["parameters"]["alpha"]["value"] == pytest.approx(0.33, abs=0.12)
    assert [one["kind"] for one in found["held_out"]] == ["leave one ratio out", "compute cutoff"]
    assert found["held_out"][0]["r2"] > 0.8
    said = run(
        capsys,
        "study",
        "law",
        runs_file,
        "--loss",
        "bpb_ja",
        "--form",
        "chinchilla",
        "--starts",
        "2",
        "--draws",
        "0",
    )
    assert "chinchilla law on 48 observations" in said
    assert "compute cutoff: R²" in said


def test_study_mixture_chooses_a_share_within_the_budget(capsys, tmp_path, runs_file) -> None:
    words = [
        "study",
        "mixture",
        runs_file,
        "--target",
        "bpb_ja",
        "--other",
        "bpb_en",
        "--parameters",
        "3B",
        "--tokens",
        "30B",
        "--starts",
        "2",
        "--draws",
        "6",
    ]
    found = json.loads(run(capsys, *words, "--allow", "0.01", "--json"))
    assert 0.1 <= found["share_95"][0] <= found["share"] + 0.2
    assert found["other_loss"] <= found["budget"] * (1 + 1e-9)
    said = run(capsys, *words, "--budget", "9")
    assert "Share of the target language: 90.0" in said
    assert "the budget is not reached" in said


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ([], "no table is given", "--example"),
        (["x.csv", "--example"], "has a table of its own", "leave the tables out"),
        (["none.csv"], "does not exist", "check the path"),
        (["--example", "--draws", "0"], "--draws 0 is too small", "give 1 or more"),
        (["--example", "--components", "40"], "40 components", "ask for 1 to 19"),
        (["--example", "--drop", "MMLV"], 'no table has a column "MMLV"', 'did you mean "MMLU"'),
        (["--example", "--shares", "none.csv"], "does not exist", "check the path"),
        (["scaling", "x.csv"], "no budgets are given", "--budgets FILE"),
        (["predict", "--example", "--cutoff", "big"], "no amount above 0", "7B"),
        (["predict", "--example", "--cutoff", "1"], "0 models up to", "--cutoff"),
        (["predict", "--example", "--target", "MLU"], 'no benchmark "MLU"', 'did you mean "MMLU"'),
        (["law", "none.csv"], "does not exist", "check the path"),
    ],
)
def test_study_mistakes_are_one_error_with_a_hint(words, said, hint) -> None:
    with pytest.raises(TsugikiError) as caught:
        app(["study", *words])
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_study_mistakes_as_json_are_json(tmp_path) -> None:
    (tmp_path / "one.csv").write_text("model,MMLU,BBH\na,0.5,0.2\n")
    words = [sys.executable, "-m", "tsugiki", "study", str(tmp_path / "one.csv"), "--json"]
    shown = subprocess.run(words, capture_output=True, text=True)
    error = json.loads(shown.stdout)["error"]
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert error["type"] == "DataError"
    assert "one model" in error["message"]


def hostile_table():
    rng = np.random.default_rng(0)
    names = tuple(f"{HOSTILE}{number}" for number in range(8))
    return ScoreTable(names, tuple(f"{HOSTILE} b{number}" for number in range(5)), rng.random((8, 5)))


def test_page_of_a_hostile_table_shows_names_and_runs_nothing() -> None:
    page = study_page(HOSTILE, study_factors(hostile_table(), Asked(draws=20, noise_draws=20)), None)
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    assert page == study_page(HOSTILE, study_factors(hostile_table(), Asked(draws=20, noise_draws=20)), None)


def elements(markup, name, css=""):
    tree = ET.fromstring(str(markup))  # noqa: S314 (our own)
    return [one for one in tree.iter(name) if css in one.get("class", "")]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_heat_map_has_a_cell_a_value_as_strong_as_it(width) -> None:
    matrix = Matrix((HOSTILE, "b"), (HOSTILE, "b"), ((1.0, None), (-0.5, 0.1)), says=(("x", "y"), ("z", "w")))
    drawn = heat_map(Canvas("key", "title", HOSTILE, width), matrix)
    strong, negative, weak = elements(drawn, "rect", "bar")
    assert (
        float(strong.get("fill-opacity"))
        > float(negative.get("fill-opacity"))
        > float(weak.get("fill-opacity"))
    )
    assert "m1" in negative.get("class")
    assert "m0" in weak.get("class")
    assert negative.find("title").text == "b, <script>alert('x')</script>‹U+202E›&\": −0.50; z"
    triangle = heat_map(
        Canvas("key", "t", "d", width),
        Matrix(("a", "b"), ("a", "b"), ((1.0, 0.2), (0.2, 1.0)), triangle=True),
    )
    assert len(elements(triangle, "rect", "bar")) == 3


def test_band_chart_keeps_the_band_around_the_line() -> None:
    points = tuple((float(x), 2.0 * x, 2.0 * x - 1, 2.0 * x + 1) for x in range(5))
    spots = [Spot(1.0, 2.5, "m0", "one", HOSTILE), Spot(3.0, 5.0, "m1", HOSTILE, "two")]
    drawn = band_chart(Canvas("key", "title", "words", WIDE), spots, [Band("m5", points)], ("x", "y"))
    (band,), (curve,) = elements(drawn, "polygon", "bar"), elements(drawn, "polyline", "curve")
    outline = [tuple(map(float, pair.split(","))) for pair in band.get("points").split()]
    line = [tuple(map(float, pair.split(","))) for pair in curve.get("points").split()]
    for (x, y), (_, high), (_, low) in zip(line, outline[:5], reversed(outline[5:]), strict=True):
        assert high < y < low  # upwards is smaller
        assert 0 <= x <= WIDE


def test_biplot_names_do_not_cover_each_other_and_arrows_point_their_way() -> None:
    rng = np.random.default_rng(1)
    spots = [
        Spot(float(x), float(y), "m0", f"model number {n}", "t")
        for n, (x, y) in enumerate(rng.normal(0, 1, (80, 2)))
    ]
    arrows = [Arrow(0.9, 0.1, "right"), Arrow(-0.1, 0.8, "up")]
    drawn = biplot(Canvas("key", "title", "words", WIDE), spots, arrows, ("x", "y"))
    right, up = elements(drawn, "line", "rule")
    assert float(right.get("x2")) > float(right.get("x1"))
    assert float(up.get("y2")) < float(up.get("y1"))
    texts = [one for one in elements(drawn, "text") if (one.text or "").startswith("model number")]
    assert 5 < len(texts) < 80
    boxes = []
    for one in texts:
        wide = 0.56 * 11.5 * len(one.text)
        start = float(one.get("x")) - (wide if one.get("text-anchor") == "end" else 0)
        boxes.append((start, float(one.get("y")), start + wide))
    for place, (start, y, end) in enumerate(boxes):
        for other, at, stop in boxes[:place]:
            assert abs(y - at) >= 12 or end <= other + 1e-6 or stop <= start + 1e-6
