from __future__ import annotations

from types import SimpleNamespace

import pytest

from tsugiki.artifacts.contract import ArtifactType
from tsugiki.artifacts.files import write_json, write_text
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, write_manifest
from tsugiki.report.page import render
from tsugiki.report.sections.upcycling import _comparisons, _figure, _proofs, _summary

FACTS = {
    "method": "drop",
    "ratio": 0.5,
    "experts": 8,
    "experts_per_token": 2,
    "granularity": 1,
    "function": {"max_abs_logit_difference": 1.2e-7, "tolerance": 1e-6},
    "result": {"divergence_nats": 0.25},
    "expected": {"kept": 0.5, "alike": 0.25, "norm": 0.791},
    "measured": {"intact_share": 0.5, "cosine_dense": 0.494, "cosine_experts": 0.243, "norm": 0.788},
    "intact_bounds": [0.5, 0.5],
    "layers": [{"layer": layer, "cosine_dense": 0.5, "cosine_experts": 0.25} for layer in range(3)],
}


def held(**changes):
    return {proof.what: proof.held for proof in _proofs({**FACTS, **changes})}


def test_proofs_hold_or_fail_by_their_bounds():
    same = "With every neuron kept, it computes what the dense model does"
    intact = "Neurons that are to the bit the dense model's"
    assert held()[same] is True
    assert held()[intact] is True
    assert held(function={"max_abs_logit_difference": 1e-3, "tolerance": 1e-6})[same] is False
    assert held(intact_bounds=[0.6, 0.6])[intact] is False
    assert same not in held(function={"max_abs_logit_difference": None, "tolerance": 1e-6})


@pytest.mark.parametrize(
    "damaged", [{}, dict.fromkeys(FACTS, "x"), dict.fromkeys(FACTS), {key: [1] for key in FACTS}]
)
def test_damaged_facts_leave_gaps_and_no_error(damaged):
    assert _proofs(damaged) == []
    assert _comparisons(damaged) == []
    assert _figure(SimpleNamespace(facts=damaged, index=0)) is None
    assert "experts" in _summary(damaged)


def test_theory_stands_beside_what_was_measured():
    rows = [(one.theory, one.measured) for one in _comparisons(FACTS)]
    assert rows == [("0.500", "0.500"), ("0.500", "0.494"), ("0.250", "0.243"), ("0.791", "0.788")]


def test_summary_says_what_was_done():
    method, changed, experts, chosen = _summary(FACTS).split(", ")
    assert (method, experts, chosen) == ("drop", "8 experts", "2 a token")
    assert changed.startswith("50.0")
    assert "slice of 1/4" in _summary({**FACTS, "granularity": 4})


def test_a_shared_expert_is_named_and_its_proof_holds_or_fails():
    shared = {"made_as": "copy", "slices": 1, "width": 160}
    assert "a shared expert of the whole feed-forward" in _summary({**FACTS, "shared_expert": shared})
    some = {**FACTS, "granularity": 4, "shared_expert": {**shared, "made_as": "slices", "slices": 2}}
    assert "a shared expert of 2 of 4 slices" in _summary(some)
    assert "shared" not in _summary({**FACTS, "shared_expert": None})
    what = "Neurons of the shared expert that are to the bit the dense model's"
    assert what not in held()
    assert held(measured={"shared_intact": 1.0})[what] is True
    assert held(measured={"shared_intact": 0.99})[what] is False


def test_page_of_a_run_with_experts_has_the_section(tmp_path):
    write_text(tmp_path / "recipe.yaml", "recipe: r\n")
    stages = {"sparse": {"kind": "upcycle", "inputs": []}}
    write_json(
        tmp_path / "run.json", {"recipe": "r", "language": "ja", "order": ["sparse"], "stages": stages}
    )
    (tmp_path / "sparse").mkdir()
    payload = {"kind": "upcycle"}
    counts = {"parameters": 416_608_768, "active_parameters": 190_116_352}
    manifest = Manifest(
        type=ArtifactType.MODEL, kind="upcycle", code_version=1, identity=identity_of(payload),
        payload=payload, config={}, files={}, counts=counts, facts=FACTS, provenance={},
    )  # fmt: skip
    write_manifest(tmp_path / "sparse", manifest)
    page = render(tmp_path)
    assert '<section id="upcycling"' in page
    assert "How alike the experts are, by layer" in page
    assert "layer 2 0.250" in page
