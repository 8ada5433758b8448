"""What is noted of routing, by definition; and whole runs of a mixture: biases resumed and exported."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.models.directory import load_decoder
from tsugiki.models.moe import Routing
from tsugiki.training import loop
from tsugiki.training.checkpoint_files import checkpoint_directories, read_checkpoint
from tsugiki.training.export import export_checkpoint
from tsugiki.training.routing import Watched, by_label, entropy, load_row, specialisation
from tsugiki.training.stage import Config
from tsugiki.training.telemetry import BIAS_FILE, _apart, read_biases, write_biases
from tsugiki.training.validation import ValidationSet

MIXTURE = {
    "model": {"preset": "mixtral-nano", "hidden_size": 32, "head_dim": 8},
    "tokens": 6144,
    "balance_bias": 0.01,
    "validation": ["english", "japanese"],
    "validation_bytes": 2000,
    "validation_points": 2,
}


DOMAINS = {"domains": {"english": "web"}}


def test_entropy_is_that_of_the_softmax_even_where_a_probability_is_zero():
    logits_SE = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [500.0, 0.0, 0.0, 0.0]])
    probabilities_SE = logits_SE.softmax(dim=-1)
    expected = [math.log(4), float(torch.special.entr(probabilities_SE[1]).sum()), 0.0]
    assert entropy(logits_SE, probabilities_SE).tolist() == pytest.approx(expected, abs=1e-6)


def test_watched_row_counts_kept_tokens_and_choices_that_a_bias_moved():
    logits_SE = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 3)
    experts_SK = torch.tensor([[0, 1], [0, 3], [2, 3]])  # a bias chose none, one, and two of them
    row = Watched.row(Routing(logits_SE, torch.ones(3, 2), experts_SK), torch.tensor([True, True, False]))
    found = Watched.of(row[None], 4)
    assert found.counts_LE.tolist() == [[2, 1, 0, 1]]
    assert (found.moved_L.tolist(), found.tokens_L.tolist()) == ([1], [2])
    assert found.moved_share == pytest.approx(0.25)
    as_row = found.as_row()
    assert as_row["load"] == [[0.5, 0.25, 0.0, 0.25]]
    assert as_row["dead_experts"] == [1]
    assert as_row["load_entropy"] == pytest.approx([1.5 * math.log(2) / math.log(4)], abs=1e-6)
    one = float(torch.special.entr(logits_SE[0].softmax(dim=-1)).sum()) / math.log(4)
    assert as_row["router_entropy"] == pytest.approx([one], abs=1e-6)


def test_load_of_a_layer_without_any_choice_is_zero_and_all_its_experts_are_dead():
    row = load_row(np.zeros((2, 4)))
    assert row == {"load": [[0.0] * 4] * 2, "load_entropy": [0.0, 0.0], "dead_experts": [4, 4]}


def test_specialisation_is_zero_where_sets_are_alike_and_by_formula_where_they_part():
    alike, left, right = ([[0.25] * 4], [[0.5, 0.5, 0.0, 0.0]], [[0.0, 0.0, 0.5, 0.5]])
    same = [np.array(alike)] * 3
    assert specialisation(same) == [0.0]
    halves = specialisation([np.array(left), np.array(right)])
    assert halves == pytest.approx([math.sqrt(math.log(2) / math.log(4))], abs=1e-6)
    one_each = [np.eye(4)[place][None] for place in range(4)]
    assert specialisation(one_each) == [1.0]
    assert specialisation([np.array(left)]) == [0.0]  # of one set nothing can be told
    assert specialisation([]) == []


@given(st.lists(st.lists(st.integers(0, 50), min_size=5, max_size=5), min_size=2, max_size=4))
def test_specialisation_lies_between_0_and_1_whatever_the_loads_and_their_order(counts):
    loads = [np.array([row], float) / max(1, sum(row)) for row in counts if sum(row)]
    if len(loads) > 1:
        found = specialisation(loads)
        assert 0 <= found[0] <= 1
        assert found == pytest.approx(specialisation(loads[::-1]), abs=2e-6)


def test_languages_are_means_of_their_sets():
    loads = {name: np.array([[share, 1 - share]]) for name, share in (("a", 0.2), ("b", 0.4), ("c", 1.0))}
    found = by_label(loads, {"a": "ja", "b": "ja", "c": ""})
    assert {language: load.round(9).tolist() for language, load in found.items()} == {"ja": [[0.3, 0.7]]}


def watched_sets(*kinds):
    """(name, language, domain, load of one layer's experts) as `_apart` takes them."""
    return [
        (ValidationSet(name, None, 1, language, domain), Watched(np.array([load]), *np.ones((3, 1))))
        for name, language, domain, load in kinds
    ]


def test_experts_that_tell_kinds_of_text_apart_are_found_whatever_the_language():
    wiki, code = [8.0, 8.0, 0.0, 0.0], [0.0, 0.0, 8.0, 8.0]
    apart = _apart(
        watched_sets(
            ("wiki-ja", "ja", "wiki", wiki), ("wiki-en", "en", "wiki", wiki),
            ("code-ja", "ja", "code", code), ("code-en", "en", "code", code),
        )
    )  # fmt: skip
    assert apart["by_domain"] == pytest.approx([0.5**0.5], abs=1e-6)
    assert apart["by_language"] == [0.0]
    own = _apart(watched_sets(("a", "", "a", wiki), ("b", "", "b", code)))
    assert (own["by_dataset"], own["by_domain"]) == (apart["by_domain"], [])  # the sets are the domains


def test_domains_are_of_validation_sets_only():
    with pytest.raises(ValueError, match="domains names news, which"):
        Config.model_validate({"model": "m", "data": {"a": 1}, "tokens": 4096, "domains": {"news": "news"}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run_stage, scratch):
    directory = tmp_path_factory.mktemp("whole")
    return directory, run_stage(directory, {**scratch, **MIXTURE, **DOMAINS})


def steps_of(directory):
    ignored = {"time", "tokens_per_second", "flops_utilisation"}
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if "step" in row]
    return {
        row["step"]: {key: value for key, value in row.items() if key not in ignored and "second" not in key}
        for row in rows
    }


def test_run_that_is_interrupted_goes_on_with_its_biases_to_the_bit(
    tmp_path, run_stage, scratch, whole, monkeypatch
):
    directory, outcome = whole
    kill_at, take_step = 13, loop._take_step

    def killed(run, data, step, counters, out):
        if step == kill_at:
            raise KeyboardInterrupt
        return take_step(run, data, step, counters, out)

    monkeypatch.setattr(loop, "_take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, {**scratch, **MIXTURE, **DOMAINS})
    monkeypatch.undo()
    again = run_stage(tmp_path, {**scratch, **MIXTURE, **DOMAINS})
    assert (tmp_path / BIAS_FILE).read_bytes() == (directory / BIAS_FILE).read_bytes()
    assert again.facts["routing"] == outcome.facts["routing"]
    assert again.facts["router_bias"] == outcome.facts["router_bias"]
    ours, theirs = steps_of(tmp_path), steps_of(directory)
    assert [row["loss"] for row in ours.values()] == [row["loss"] for row in theirs.values()]
    weights, expected = (load_decoder(path).state_dict() for path in (tmp_path, directory))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_manifest_says_that_the_files_lack_the_biases_and_what_that_changes(whole):
    directory, outcome = whole
    found = outcome.facts["router_bias"]
    assert (found["in_files"], found["file"], found["rate"]) == (False, BIAS_FILE, 0.01)
    assert found["largest"] >= 0.05
    assert found["moved_share"] > 0
    assert [row["dataset"] for row in found["without"]] == ["english", "japanese"]
    assert all(row["bits_per_byte"] != row["bits_per_byte_without_bias"] for row in found["without"])
    shape = load_decoder(directory).config
    biases = read_biases(directory, shape)
    assert max(abs(value) for row in biases for value in row) == pytest.approx(found["largest"])
    assert "bias" not in json.loads((directory / "config.json").read_text())


def test_metrics_and_manifest_hold_the_routing_of_training_and_of_every_set(whole):
    directory, outcome = whole
    rows = list(read_metrics(directory / "metrics.jsonl"))
    routed = [row for row in rows if row.get("event") == "routing"]
    assert [(row["after_step"], row["dataset"]) for row in routed] == [
        (step, name) for step in (0, 12, 24) for name in ((None,) if step else ()) + ("english", "japanese")
    ]
    for row in routed:
        assert np.array(row["load"]).sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    apart = [row for row in rows if row.get("event") == "specialisation"]
    assert [row["after_step"] for row in apart] == [0, 12, 24]
    assert apart[-1]["by_dataset"][0] > 0
    found = outcome.facts["routing"]
    assert (found["layers"], found["experts"], found["experts_per_token"]) == ([0, 1], 4, 2)
    assert found["sets"]["japanese"]["load"] == routed[-1]["load"]
    assert [one["domain"] for one in found["sets"].values()] == ["web", "japanese"]
    assert found["specialisation"][-1]["by_dataset"] == apart[-1]["by_dataset"]
    steps = steps_of(directory)
    assert {"load_entropy", "router_entropy", "dead_experts"} <= steps[1].keys()
    assert 0 < steps[24]["load_entropy"] <= 1


def test_training_goes_on_from_the_biases_beside_a_model(tmp_path, run_stage, scratch, whole):
    directory, _ = whole
    settings = {**scratch, **MIXTURE, "model": "base", "tokenizer": None, "tokens": 256, "validation": []}
    run_stage(tmp_path, settings, base=directory)
    before, after = (
        np.array(read_biases(path, load_decoder(directory).config)) for path in (directory, tmp_path)
    )
    assert np.abs(before - after).max() == pytest.approx(0.01, rel=1e-4)


def test_exported_checkpoint_has_its_biases_beside_it(tmp_path, run_stage, scratch):
    settings = {**scratch, **MIXTURE, "tokens": 1536, "keep_every_steps": 5, "validation": []}
    run_stage(tmp_path / "run", settings)
    (kept,) = checkpoint_directories(tmp_path / "run" / "work")
    export_checkpoint(kept, tmp_path / "out")
    shape = load_decoder(tmp_path / "out").config
    assert read_biases(tmp_path / "out", shape) == read_checkpoint(kept).counters["router_biases"]


@pytest.mark.parametrize("damage", ["layers", "experts", "words", "infinite", "list"])
def test_biases_that_do_not_fit_a_model_are_refused(tmp_path, damage):
    shape = preset("mixtral-nano")
    assert read_biases(tmp_path, shape) is None
    rows = {"layers": [[0.0] * 4], "experts": [[0.0] * 3] * 2, "words": [["a"] * 4] * 2}
    write_biases(tmp_path, range(len(rows.get(damage, [0, 0]))), rows.get(damage, [[0.0] * 4] * 2))
    text = (tmp_path / BIAS_FILE).read_text()
    if damage == "infinite":
        (tmp_path / BIAS_FILE).write_text(text.replace("0.0", "1e999", 1))
    if damage == "list":
        (tmp_path / BIAS_FILE).write_text("[]")
    with pytest.raises(InputError, match=BIAS_FILE):
        read_biases(tmp_path, shape)


def test_dense_run_notes_nothing_of_routing(trained):
    directory, outcome = trained
    assert "routing" not in outcome.facts
    assert not (directory / BIAS_FILE).exists()
