"""`tsugiki planner` as a user meets it: tables, JSON, a page, settings to paste, and mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tsugiki.cli import app
from tsugiki.errors import InputError, StageError
from tsugiki.models.config import preset

ROOT = Path(__file__).resolve().parents[2]
WORK = ["--sequence", "8192", "--batch", "1024"]


@pytest.fixture
def planner(capsys):
    """Run a command in this process; what it printed."""

    def run(*words: str) -> str:
        app(["planner", *words], exit_on_error=False, result_action="return_value")
        return capsys.readouterr().out

    return run


def test_planner_ranks_layouts_and_says_what_was_chosen_and_refused(planner) -> None:
    shown = planner("llama-3.1-8b", "--gpus", "16", *WORK, "--tokens", "100B")
    lines = shown.splitlines()
    assert lines[0].startswith("llama-3.1-8b: 8.03")
    assert "tokens/s/GPU" in shown
    assert sum(line.startswith("*") for line in lines) == 1
    assert "Chosen: " in shown
    assert "GPU-hours" in shown
    assert "would do: " in shown
    assert max(map(len, lines)) < 160


def test_planner_json_holds_every_layout_with_bytes_seconds_and_reasons(planner) -> None:
    found = json.loads(planner("llama-3.1-8b", "--gpus", "16", *WORK, "--json"))
    assert found["parameters"] == preset("llama-3.1-8b").parameters
    assert found["chosen"]["verdict"] == "safe"
    seconds = [one["seconds"]["total"] for one in found["layouts"]]
    assert seconds == sorted(seconds)
    for one in found["layouts"]:
        parts = sum(size for name, size in one["bytes"].items() if name not in {"stage", "total"})
        assert one["bytes"]["total"] == pytest.approx(parts)
    assert found["refused"]
    assert all(one["reason"] and one["change"] for one in found["refused"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--emit", "megatron-lm"], "--tensor-model-parallel-size"),
        (["--framework", "torchtitan", "--emit", "torchtitan"], "tensor_parallel_degree"),
        (["--framework", "tsugiki", "--emit", "tsugiki"], "parallel: {data:"),
    ],
)
def test_planner_emits_settings_and_nothing_else(planner, words, expected) -> None:
    shown = planner("llama-3.1-8b", "--gpus", "16", *WORK, *words)
    assert expected in shown
    assert "Chosen" not in shown


class Page(HTMLParser):
    """Counts elements, and collects addresses of anything outside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [value for name, value in attrs if name in {"src", "href"} and value]


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b"])
def test_planner_page_is_self_contained_and_the_same_every_time(planner, tmp_path, model) -> None:
    files = [tmp_path / "one.html", tmp_path / "two.html"]
    for file in files:
        planner(model, "--gpus", "16", "--device", "h200-141gb", *WORK, "--html", str(file), "--tokens", "1B")
    text = files[0].read_text(encoding="utf-8")
    assert text == files[1].read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert all(address.startswith("#") for address in page.addresses)
    assert page.counts["svg"] >= 6
    assert page.counts["table"] == 2
    assert "script" not in page.counts
    assert "nan" not in text.lower().replace("finance", "")


def test_planner_page_of_nothing_that_fits_gives_the_reasons(planner, tmp_path) -> None:
    file = tmp_path / "none.html"
    with pytest.raises(StageError, match="no layout fits"):
        planner("llama-3-70b", "--gpus", "1", *WORK, "--html", str(file))
    assert "No layout fits" in file.read_text(encoding="utf-8")


def test_planner_reads_a_config_json_and_a_model_directory(planner, tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(preset("llama-3.1-8b").to_hf()))
    by_name = json.loads(planner("llama-3.1-8b", "--gpus", "8", *WORK, "--json"))
    for given in (tmp_path, tmp_path / "config.json"):
        found = json.loads(planner(str(given), "--gpus", "8", *WORK, "--json"))
        assert found["chosen"] == by_name["chosen"]


def test_planner_takes_sizes_from_a_recipes_stage(planner) -> None:
    recipe = str(ROOT / "recipes" / "swallow-llama2-7b.yaml")
    found = json.loads(
        planner(recipe, "--stage", "adapted", "--gpus", "32", "--device", "a100-40gb", "--json")
    )
    assert (found["sequence_length"], found["batch"]) == (4096, 1024)
    assert found["chosen"]["cost"]["device_hours"] > 1000


def test_planner_space_options_narrow_the_search(planner) -> None:
    words = [
        "--tensor",
        "2,4",
        "--pipeline",
        "1",
        "--context",
        "1",
        "--micro-batch",
        "1",
        "--recompute",
        "none",
    ]
    found = json.loads(planner("llama-3.1-8b", "--gpus", "16", *WORK, *words, "--json"))
    tried = [one["layout"] for one in (*found["layouts"], *found["refused"])]
    assert {one["tensor"] for one in tried} == {2, 4}
    assert {one["recompute"] for one in tried} == {"none"}


def test_planner_takes_devices_and_prices_of_ones_own(planner, tmp_path) -> None:
    devices = tmp_path / "devices.toml"
    devices.write_text('[ours]\nlike = "h100-80gb"\nmemory_bytes = 200e9\ndollars_per_hour = 1.5\n')
    words = ["--gpus", "8", *WORK, "--tokens", "1B", "--json"]
    own = json.loads(planner("llama-3.1-8b", "--device", "ours", "--devices", str(devices), *words))
    assert own["device"]["memory_bytes"] == 200e9
    assert own["chosen"]["cost"]["dollars"] == pytest.approx(1.5 * own["chosen"]["cost"]["device_hours"])
    given = json.loads(
        planner("llama-3.1-8b", "--price", "7", "--network", "12.5", "--gpus-per-node", "4", *words)
    )
    assert given["device"]["network_bandwidth"] == 12.5e9
    assert given["device"]["node"] == 4
    assert given["device"]["dollars_per_hour"] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ours]\nmemory = 3\n", 'unknown key "memory"'),
        ('[ours]\nlike = "h100-80gb"\nnode = 0\n', "node is 0"),
        ('[ours]\nlike = "h100-80gb"\nnode = "four"\n', "node is 'four'"),
        ('[ours]\nlike = "h10"\n', 'no device "h10"'),
        ("[ours]\nnode = 8\n", "does not say memory_bytes"),
        ("node = 8\n", "outside of a device's table"),
        ("[ours\n", "can't be read as TOML"),
    ],
)
def test_planner_devices_file_that_makes_no_sense_is_told(planner, tmp_path, text, message) -> None:
    devices = tmp_path / "devices.toml"
    devices.write_text(text)
    with pytest.raises(InputError) as error:
        planner("llama-3.1-8b", "--gpus", "8", *WORK, "--devices", str(devices))
    assert message in error.value.message


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["llama-3.1-8", "--gpus", "8", *WORK], "is no preset", "llama-3.1-8b"),
        (["llama-3.1-8b", "--gpus", "0", *WORK], "0 GPUs", "--gpus 1"),
        (["llama-3.1-8b", "--gpus", "8"], "--sequence is missing", "--sequence 8192"),
        (["llama-3.1-8b", "--gpus", "8", "--sequence", "8192"], "--batch is missing", "--batch 1024"),
        (["llama-3.1-8b", "--gpus", "8", "--sequence", "eight", "--batch", "4"], "--sequence eight", "1024"),
        (["llama-3.1-8b", "--gpus", "8", *WORK, "--tensor", "2,x"], "--tensor x", "1024"),
        (["llama-3.1-8b", "--gpus", "8", *WORK, "--tensor", "0"], "0 is not a degree", "1,2,4"),
        (["llama-3.1-8b", "--gpus", "8", *WORK, "--recompute", "some"], '"some" is not known', "none"),
        (["llama-3.1-8b", "--gpus", "8", *WORK, "--device", "h100"], 'no device "h100"', "h100-80gb"),
        (["llama-3.1-8b", "--gpus", "8", *WORK, "--price", "-1"], "--price -1", "leave --price out"),
        (["llama-3.1-8b", "--gpus", "8", *WORK, "--stage", "x"], "--stage names a stage", "recipe"),
    ],
)
def test_planner_bad_input_names_what_was_seen_and_what_would_work(planner, words, message, hint) -> None:
    with pytest.raises(InputError) as error:
        planner(*words)
    assert message in error.value.message
    assert hint in error.value.hint


def test_planner_of_a_config_with_missing_fields_names_them(planner, tmp_path) -> None:
    config = preset("llama-3.1-8b").to_hf()
    del config["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="hidden_size"):
        planner(str(tmp_path), "--gpus", "8", *WORK)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--tensor", "3"], "tensor: 3 does not divide query heads", "1, 2, 4, 8, 16, 32"),
        (["--tensor", "5"], "tensor: 5 does not divide 24 GPUs", "1, 2, 3, 4, 6, 8, 12, 24"),
        (["--pipeline", "12,24"], "pipeline: 12 does not divide layers", "1, 2, 4, 8, 16, 32"),
        (["--context", "3"], "context: 3 needs 6 pieces of a sequence", "1, 2, 4, 8"),
        (["--micro-batch", "3,5"], "micro_batch: 3 does not divide sequences", "1, 2, 4"),
        (["--chunks", "7"], "chunks: 7 does not divide 32 layers", "1, 2, 4, 8"),
        (["--expert", "2"], "expert: the model has no experts", "use expert 1"),
        (["--sharding", "weigths"], '"weigths" is not known', '"weights"'),
        (["--assume", "swiglu_saved=7"], 'swiglu_saved: "7" is not 6 or 8', "it is 8 for megatron-lm"),
        (["--assume", "norm_bites=6"], 'no switch "norm_bites"', '"norm_bytes"'),
        (["--assume", "logit_bytes=-1"], '"-1" is not a number of 0 or more', "it is 6"),
    ],
)
def test_planner_option_that_can_not_be_is_refused_with_what_would_do(
    planner, options, message, hint
) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        planner("llama-3.1-8b", "--gpus", "24", *WORK, *options)
    assert hint in caught.value.hint


def test_planner_where_nothing_fits_shows_what_it_refused_and_fails(planner, capsys) -> None:
    with pytest.raises(StageError, match="no layout fits") as caught:
        planner("llama-3-70b", "--gpus", "8", *WORK, "--device", "a100-40gb")
    assert "the smallest layout (tensor 8" in caught.value.hint
    assert "Refused (" in capsys.readouterr().out


def test_planner_shardings_that_were_asked_for_stand_in_the_table(planner) -> None:
    narrow = ("--context", "1", "--recompute", "none", "--micro-batch", "1", "--tensor", "8")
    every = ("--sharding", "none,optimizer,gradients,weights", "--schedule", "gpipe,1f1b", "--json")
    need = {}
    for pipeline in ("1", "2"):
        found = json.loads(
            planner("llama-3.1-8b", "--gpus", "32", *WORK, *narrow, "--pipeline", pipeline, *every)
        )
        for one in found["layouts"] + found["refused"]:
            size = one["bytes"] if isinstance(one["bytes"], float) else one["bytes"]["total"]
            need[pipeline, one["layout"]["schedule"], one["layout"]["sharding"]] = size
    assert len(need) == 12  # without a pipeline schedules are one
    states = [need["1", "1f1b", name] for name in ("none", "optimizer", "gradients", "weights")]
    assert states == sorted(states, reverse=True)
    for sharding in ("none", "optimizer", "gradients", "weights"):
        assert need["2", "gpipe", sharding] > need["2", "1f1b", sharding]
    shown = planner("llama-3.1-8b", "--gpus", "32", *WORK, *narrow, "--sharding", "optimizer,weights")
    assert "shared" in shown
    assert "optimizer" in shown


def test_planner_kernels_that_are_assumed_change_the_memory(planner) -> None:
    narrow = (
        "--tensor",
        "4",
        "--pipeline",
        "1",
        "--context",
        "1",
        "--micro-batch",
        "1",
        "--recompute",
        "none",
    )

    def activations(*options: str) -> float:
        found = json.loads(planner("llama-3.1-8b", "--gpus", "8", *WORK, *narrow, *options, "--json"))
        return found["layouts"][0]["bytes"]["activations"]

    plain = activations()
    saved = plain - activations("--assume", "swiglu_saved=6")
    assert saved == pytest.approx(2 * 14336 * 8192 * 32 / 4)  # bytes x width x tokens x layers / tensor
    assert activations("--assume", "norm_bytes=6") > plain


def test_planner_emit_where_nothing_fits_is_an_error(planner) -> None:
    with pytest.raises(StageError, match="no layout fits"):
        planner("llama-3-70b", "--gpus", "1", *WORK, "--emit", "megatron-lm")


def test_planner_emit_of_our_recipe_wants_our_kernels(planner) -> None:
    with pytest.raises(InputError, match="Tsugiki spreads weights"):
        planner("llama-3.1-8b", "--gpus", "8", *WORK, "--emit", "tsugiki")


def test_planner_measured_shows_classification_and_choices(planner) -> None:
    shown = planner("measured")
    assert "Best single threshold" in shown
    assert "128 x H100 (94GB)" in shown
    found = json.loads(planner("measured", "--json"))
    assert found["correct"] >= 0.95
    assert len(found["cells"]) == 191


def test_planner_measured_takes_a_file_of_ones_own(planner, tmp_path) -> None:
    lines = (ROOT / "src/tsugiki/planner/data/megatron_llama31_8b_4d.csv").read_text().splitlines()
    runs = tmp_path / "runs.csv"
    runs.write_text(
        "\n".join([lines[0], *(line.replace("H100 (94GB)", "h100-94gb") for line in lines if "H100" in line)])
    )
    found = json.loads(planner("measured", str(runs), "--json"))
    assert {one["gpu"] for one in found["cells"]} == {"h100-94gb"}
    assert len(found["choices"]) == 6
    runs.write_text("\n".join([lines[0], lines[1].replace("A100 (40GB)", "a10")]))
    with pytest.raises(InputError, match='no device "a10"'):
        planner("measured", str(runs))
    runs.write_text("\n".join(lines[:2]))
    assert "nothing to choose from" in planner("measured", str(runs))


def test_planner_calibrate_writes_constants_that_planner_reads(planner, tmp_path) -> None:
    lines = (ROOT / "src/tsugiki/planner/data/megatron_llama31_8b_4d.csv").read_text().splitlines()
    runs, out = tmp_path / "runs.csv", tmp_path / "ours.json"
    runs.write_text("\n".join([lines[0], *(line for line in lines if "H100" in line and ",8," in line)]))
    words = ["--model", "llama-3.1-8b", "--batch", "1024", "--device", "h100-94gb", "--gpus-per-node", "4"]
    shown = planner("calibrate", str(runs), *words, "--out", str(out))
    assert "products" in shown
    before = json.loads(planner("llama-3.1-8b", "--gpus", "8", *WORK, "--json"))
    after = json.loads(planner("llama-3.1-8b", "--gpus", "8", *WORK, "--calibration", str(out), "--json"))
    assert before["chosen"]["tokens_per_second"] != after["chosen"]["tokens_per_second"]
    out.write_text("{}")
    with pytest.raises(InputError, match="holds no calibration"):
        planner("llama-3.1-8b", "--gpus", "8", *WORK, "--calibration", str(out))


def test_planner_calibrate_of_two_types_of_device_is_refused(planner) -> None:
    runs = ROOT / "src/tsugiki/planner/data/megatron_llama31_8b_4d.csv"
    with pytest.raises(InputError, match="2 types of device"):
        planner("calibrate", str(runs), "--model", "llama-3.1-8b", "--batch", "1024")


def test_planner_imports_nothing_heavy() -> None:
    code = (
        "import sys, tsugiki.planner.search, tsugiki.planner.measured, tsugiki.planner.emit; "
        "print([name for name in ('torch', 'transformers', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
