"""What a train stage met: spikes, prompts, float8 and routers, as the report shows them."""

from __future__ import annotations

import pytest

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.metrics import MetricsLog
from tsugiki.report import render

HOSTILE = "<script>alert(1)</script>"
SPIKE = {
    "kind": "loss spike",
    "step": 97,
    "first": 90,
    "stop": 98,
    "spare": 0,
    "back_to": 88,
    "loss": 6.25,
    "usual_loss": 3.5,
    "fell_back": False,
}
SAMPLES = [
    {"prompt": "学習とは", "step": step, "text": text}
    for step, text in ((0, "はじめの文"), (73, "なかほどの文"), (146, f"おわりの文{HOSTILE}"))
]


@pytest.fixture
def shown(new_run, parse):
    """The report of a run whose stage "adapted" recorded these facts."""

    def run(**more):
        return parse(
            render(new_run(facts=lambda name, found: found.update(more) if name == "adapted" else None))
        )

    return run


def test_training_section_names_every_spike_and_what_was_left_out(shown) -> None:
    other = {**SPIKE, "kind": "not a number", "step": 120, "first": 120, "stop": 121, "fell_back": True}
    page = shown(left_out=[SPIKE, other])
    assert "Loss spikes: steps that were undone, not taken" in page.text
    table = page.source[page.source.index("Loss spikes: steps") :]
    assert '<td>loss spike</td><td class="n">98</td><td class="n">6.25 (3.50)</td>' in table
    assert '<td class="n">88</td><td class="n">8</td>' in table
    assert '<td>not a number, in bfloat16 from here on</td><td class="n">121</td>' in table


def test_training_section_shows_the_first_and_the_last_text_after_a_prompt_escaped(shown) -> None:
    page = shown(samples=SAMPLES)
    assert "はじめの文" in page.text
    assert "なかほどの文" not in page.text
    assert f"おわりの文{HOSTILE}" in page.text
    assert ("script", {}) not in page.tags


def test_training_section_without_spikes_and_prompts_has_no_such_tables(shown) -> None:
    page = shown(left_out=[], samples=[])
    assert "Loss spikes" not in page.text
    assert "after the recipe's prompts" not in page.text


@pytest.mark.parametrize("damaged", [[{}], [{"kind": 3, "step": "x", "loss": None}], ["x"], "x", 7])
def test_training_section_with_damaged_tables_still_draws_the_page(shown, damaged) -> None:
    page = shown(left_out=damaged, samples=damaged)
    assert "Training curves in bits per byte" in page.text


def test_training_section_draws_the_noise_of_float8(new_run, parse) -> None:
    place = new_run()
    log = MetricsLog(place / "adapted" / "metrics.jsonl")
    for step in range(147, 160):
        log.append(step=step, tokens=step * 4096, float8_sqnr=27.5, loss=3.0)
    log.close()
    page = parse(render(place))
    assert "Signal-to-noise ratio" in page.text


def test_training_section_says_how_fast_a_device_was_by_both_counts_and_how_full(new_run, parse) -> None:
    place = new_run()
    (place / "adapted" / "metrics.jsonl").unlink()
    log = MetricsLog(place / "adapted" / "metrics.jsonl")
    for step, mfu in enumerate((0.05, 0.40, 0.42, 0.43), start=1):
        figures = {"mfu": mfu, "mfu_full_attention": mfu * 1.1, "memory_bytes": 1e10 * step}
        log.append(step=step, tokens=step * 4096, loss=3.0, tokens_per_second_per_device=5150.0, **figures)
    log.close()
    page = parse(render(place))
    row = page.source[page.source.index("<caption>Train stages") :]
    assert "5.15" in row
    assert '<td class="n">41.0\u202f% (45.1\u202f%)</td>' in row  # medians: the first step is no measure
    assert "40" in row[row.index("45.1") :][:80]
    assert "share of the peak (MFU)" in page.text


def test_training_section_without_a_gpu_has_no_utilisation(new_run, parse) -> None:
    assert "share of the peak (MFU)" not in parse(render(new_run())).text


def test_metrics_that_the_manifest_does_not_vouch_for_are_drawn_as_they_are(new_run, parse) -> None:
    place = new_run()
    manifest = read_json(place / "adapted" / "manifest.json")
    assert "metrics.jsonl" not in manifest["files"]
    (place / "adapted" / "metrics.jsonl").write_bytes(b"\xff\xfe{")
    write_json(place / "adapted" / "manifest.json", manifest)
    assert "Training curves in bits per byte" in parse(render(place)).text
