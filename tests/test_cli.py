"""The program as a person meets it: help, exit statuses, errors, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-c", "from tsugiki.cli import main; main()"]
VERBS = ("plan", "run", "status", "report", "verify", "schema", "corpus", "vocabulary", "train", "evaluate")


def call(*arguments, cwd=ROOT, check=None, **environment):
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


HELP_OF_ALL = """
import sys
from tsugiki.cli import app
def help_of(*words):
    app([*words, "--help"], result_action="return_value")
    heavy = {"torch", "daft", "transformers", "numba", "pyarrow", "numpy", "pydantic", "jinja2"}
    assert not heavy & set(sys.modules), (words, heavy & set(sys.modules))
help_of()
for verb in sys.argv[1:]:
    help_of(verb)
for name in app["corpus"]:
    if not name.startswith("-"):
        help_of("corpus", name)
"""


def test_help_of_every_command_lists_what_there_is_and_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, *VERBS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert all(f"│ {verb} " in done.stdout for verb in VERBS)
    assert "Usage: tsugiki corpus train-classifier" in done.stdout


PLAN = """
import sys
from tsugiki.cli import app
app(["plan", sys.argv[1]], result_action="return_value")
heavy = {"torch", "daft", "transformers", "numba", "pyarrow", "numpy", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("recipe", ["demo-ja", "swallow-llama2-7b", "drop-upcycling-mini-ja"])
def test_plan_imports_nothing_heavy(recipe):
    done = subprocess.run(
        [sys.executable, "-c", PLAN, f"recipes/{recipe}.yaml"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("words", [[], ["corpus"], ["corpus", "select"], ["train"]])
def test_help_answers_fast_even_on_a_busy_machine(words):
    # the budget is 0.3 s on an idle machine; CPU time of the process is steadier than the clock
    before = os.times()
    call(*words, "--help", check=0)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.6


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb):
    text = call(verb, "--help", check=0).stdout
    assert "Example: tsugiki " + verb in " ".join(text.split())
    assert "--json" in text


def test_plan_of_the_demo_is_free_of_problems():
    plan = json.loads(call("plan", "recipes/demo-ja.yaml", "--json", check=0).stdout)
    assert plan["problems"] == []
    assert [stage["name"] for stage in plan["stages"]][-1] == "scores"
    assert all(stage["seconds"] > 0 for stage in plan["stages"] if stage["state"] != "done")


def test_plan_of_a_bad_recipe_exits_with_2_and_says_why_as_json_too(tmp_path):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("recipe: bad\nlanguage: ja\nstages:\n  a: {kind: trian}\n")
    done = call("plan", recipe, check=2)
    assert 'did you mean "train"?' in done.stderr
    assert "bad.yaml:4" in done.stderr
    assert "Traceback" not in done.stderr
    said = json.loads(call("plan", recipe, "--json", check=2).stdout)
    assert said["error"]["type"] == "RecipeError"
    assert said["error"]["problems"][0]["hint"] == 'did you mean "train"?'


def test_unknown_verb_and_option_suggest_the_nearest():
    for words, suggestion in (
        (["rnu"], 'Did you mean "run"?'),
        (["run", "r.yaml", "--untill", "x"], "--until"),
    ):
        done = call(*words)
        assert done.returncode != 0
        assert suggestion in done.stdout + done.stderr


def test_status_and_report_of_an_unknown_run_are_clear(tmp_path):
    for verb in ("status", "report", "verify"):
        done = call(verb, "nothing", "--runs", tmp_path, check=2)
        assert 'there is no run "nothing"' in done.stderr
        assert "Hint: " in done.stderr


def test_run_options_that_exclude_each_other_are_refused():
    done = call("run", "recipes/demo-ja.yaml", "--rebuild", "--accept", check=2)
    assert "exclude each other" in done.stderr


def test_schema_lists_keys_with_types_and_meanings():
    text = call("schema", "train", check=0).stdout
    assert "learning_rate" in text
    assert "micro_batch_tokens*" in text
    assert json.loads(call("schema", "corpus", "--json", check=0).stdout)["additionalProperties"] is False
    assert "vocabulary" in call("schema", check=0).stdout
    assert 'did you mean "train"' in call("schema", "trian", check=2).stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    place = tmp_path_factory.mktemp("alone")
    sys.path.insert(0, str(ROOT / "tests" / "workflow"))
    try:
        from conftest import sentences
    finally:
        sys.path.pop(0)
    rows = [{"id": str(i), "text": sentences(i, 12)} for i in range(20)]
    (place / "pages.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return place


def test_stage_alone_makes_an_artifact_and_refuses_drift(pages):
    command = ["corpus", "out/pages", "--source", "pages.jsonl", "--language", "ja", "--rules", "none"]
    made = json.loads(call(*command, "--json", cwd=pages, check=0).stdout)
    assert made["counts"]["documents"] > 0
    assert (pages / "out" / "pages" / "manifest.json").exists()
    assert not (pages / "out" / "recipe.yaml").exists()
    assert "done before" in call(*command, cwd=pages, check=0).stderr
    drifted = call(*command, "--seed", "5", cwd=pages, check=3)
    assert "config.seed: 0 -> 5" in drifted.stderr
    call(*command, "--seed", "5", "--rebuild", cwd=pages, check=0)


def test_run_status_verify_report_of_a_small_recipe(pages):
    (pages / "r.yaml").write_text(
        "recipe: tiny\nlanguage: ja\nstages:\n"
        "  pages: {kind: corpus, source: pages.jsonl, language: ja, rules: none}\n"
    )
    environment = {"TSUGIKI_RUNS": "results"}
    assert "pages: waiting" in _states(call("status", "r.yaml", "--json", cwd=pages, check=0, **environment))
    done = call("run", "r.yaml", cwd=pages, check=0, **environment)
    assert "pages: done in" in done.stderr
    assert "\x1b" not in done.stderr  # no bars where there is no terminal
    assert "pages: done" in _states(call("status", "tiny", "--json", cwd=pages, check=0, **environment))
    report = pages / "results" / "tiny" / "report.html"
    before = report.read_bytes()
    report.unlink()
    call("report", "tiny", cwd=pages, check=0, **environment)
    assert report.read_bytes() == before
    assert "as in its manifest" in call("verify", "tiny", cwd=pages, check=0, **environment).stdout
    (part,) = (pages / "results" / "tiny" / "pages" / "documents").glob("*.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1  # the same size: only a full check can see it
    part.write_bytes(data)
    assert "has changed" in call("verify", "tiny", cwd=pages, check=1, **environment).stdout


def _states(done):
    return [f"{row['name']}: {row['state']}" for row in json.loads(done.stdout)["stages"]]


def test_interrupt_ends_with_130_and_says_that_it_goes_on(pages):
    (pages / "long.yaml").write_text(
        "recipe: long\nlanguage: ja\nstages:\n"
        "  pages: {kind: corpus, source: pages.jsonl, language: ja, rules: none}\n"
        "  base: {kind: train, model: {preset: llama-nano}, tokenizer: {train: pages, size: 300},\n"
        "    data: {pages: 1}, tokens: 10M, max_epochs: 100000, sequence_length: 64, batch_tokens: 256}\n"
    )
    command = [*PROGRAM, "run", "long.yaml"]

    def heed_interrupts():  # a test run in the background has them ignored, and children inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        command,
        cwd=pages,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 (one thread here)
    ) as runner:
        job = pages / "runs" / "long" / "base" / "job.json"
        deadline = time.monotonic() + 120
        while not job.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        runner.send_signal(signal.SIGINT)
        _, said = runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert "base: interrupted" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said


def test_stage_alone_never_deletes_what_is_not_its_own(pages):
    (pages / "mine").mkdir()
    (pages / "mine" / "thesis.txt").write_text("years of work")
    done = call("corpus", "mine", "--source", "pages.jsonl", "--language", "ja", cwd=pages, check=2)
    assert "did not make what is in it" in done.stderr
    assert (pages / "mine" / "thesis.txt").read_text() == "years of work"


def test_stage_alone_may_be_called_like_its_input(pages):
    (pages / "base").mkdir()
    (pages / "base" / "config.json").write_text("{}")
    done = call(
        "train", "out/base", "--model", "base", "--data", "{out/pages: 1}", "--tokens", "1k", cwd=pages
    )
    assert done.returncode != 0
    assert "circle" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("out", ["/proc/x", "pages.jsonl"])
def test_stage_alone_into_an_impossible_place_is_one_clear_error(pages, out):
    done = call("corpus", out, "--source", "pages.jsonl", "--language", "ja", cwd=pages)
    assert done.returncode != 0
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (pages / "pages.jsonl").is_file()
