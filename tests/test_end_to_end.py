"""The demo's own graph on the sample crawl, at a smaller size: undisturbed, and killed ten times."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.artifacts.manifest import read_manifest
from tsugiki.workflow.states import is_locked

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-c", "from tsugiki.cli import main; main()"]
KILLS = 10

SMALL_TRAINING = "\n    max_epochs: 50\n    checkpoint_every_steps: 10\n    threads: 1"

# The demo's graph word for word; only amounts shrink, and two files of the crawl are read.
SMALLER = (
    (r"examples/crawl/\*\.warc\.gz", f"{ROOT}/examples/crawl/sample-00[01].warc.gz"),
    (r"preset: llama-mini", "preset: llama-nano"),
    (r"size: 4096", "size: 600"),
    (r"tokens: (?:450|600)k", f"tokens: 30k{SMALL_TRAINING}"),
    (r"equal_compute: adapted", f"equal_compute: adapted{SMALL_TRAINING}"),
    (r"sequence_length: 256", "sequence_length: 128"),
    (r"batch_tokens: 1024", "batch_tokens: 512"),
    (r"add: 2048", "add: 200"),
    (r"cloze_items: 100", "cloze_items: 8"),
    (r"generation_prompts: 6", "generation_prompts: 1"),
    (
        r"tasks: \[bits-per-byte, cloze, generation\]",
        (
            "tasks: [bits-per-byte, cloze, generation]\n    maximum_documents: 5\n"
            "    bootstrap_draws: 500\n    threads: 1"
        ),
    ),
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    text = (ROOT / "recipes" / "demo-ja.yaml").read_text(encoding="utf-8")
    for old, new in SMALLER:
        text, count = re.subn(old, new, text)
        assert count, old
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def command(recipe, runs):
    return [*PROGRAM, "run", str(recipe), "--runs", str(runs)]


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(command(recipe, runs), capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return runs / "demo-ja"


def content(run):
    return {
        f"{stage.parent.name}/{name}": entry.sha256
        for stage in sorted(run.glob("*/manifest.json"))
        for name, entry in read_manifest(stage.parent).files.items()
    }


@pytest.mark.slow
def test_run_makes_models_scores_and_a_report(undisturbed):
    files = content(undisturbed)
    for name in ("base", "vocabulary", "adapted", "control"):
        assert f"{name}/model.safetensors" in files
        assert f"{name}/tokenizer.json" in files
    assert "scores/scores.parquet" in files
    report = (undisturbed / "report.html").read_text(encoding="utf-8")
    assert "<script" not in report
    assert not re.search(r"""(?:src|href)=["']?https?:""", report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "vocabulary", "adapted", "control"])
def test_model_is_loaded_by_transformers(undisturbed, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(undisturbed / name)
    model = AutoModelForCausalLM.from_pretrained(undisturbed / name)
    ids = tokenizer("接ぎ木 grafting", return_tensors="pt").input_ids
    assert model(ids).logits.shape[-1] == read_manifest(undisturbed / name).counts["vocabulary_size"]


@pytest.mark.slow
def test_control_arm_spends_the_compute_of_the_adapted_arm(undisturbed):
    adapted = read_manifest(undisturbed / "adapted").counts
    control = read_manifest(undisturbed / "control").counts
    assert control["training_flops"] == pytest.approx(adapted["training_flops"], rel=0.03)
    assert control["tokens"] > adapted["tokens"]  # the smaller output layer leaves more for tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", ["japanese", "english"])
def test_held_out_pages_have_no_near_duplicate_in_training(undisturbed, name):
    """Not the stage's own figure: five-grams counted anew from the text, all pairs."""

    def grams(row):
        return {row["text"][i : i + 5] for i in range(max(len(row["text"]) - 4, 1))}

    train = [grams(row) for row in iterate_documents(undisturbed / name, split="train", columns=["text"])]
    held = [grams(row) for row in iterate_documents(undisturbed / name, split="heldout", columns=["text"])]
    assert train
    assert held
    worst = max(len(h & t) / len(h | t) for h in held for t in train)
    assert worst < 0.5
    said = read_manifest(undisturbed / name).facts["split"]
    assert said["max_similarity"] == pytest.approx(worst, abs=0.02)


@pytest.mark.slow
def test_every_item_is_scored_by_every_model(undisturbed):
    rows = pq.read_table(undisturbed / "scores" / "scores.parquet").to_pylist()
    items = {}
    for row in rows:
        items.setdefault(row["model"], set()).add((row["task"], row["dataset"], row["item"]))
    assert set(items) == {"base", "adapted", "control"}
    assert items["base"] == items["adapted"] == items["control"]


@pytest.mark.slow
def test_run_killed_at_ten_random_moments_ends_with_the_same_bytes(recipe, undisturbed, tmp_path):
    draw = random.Random(20261121)
    seconds = sum(
        read_manifest(path.parent).provenance["seconds"] for path in undisturbed.glob("*/manifest.json")
    )
    kills, code, said = 0, None, ""
    while code is None:
        with subprocess.Popen(command(recipe, tmp_path), stderr=subprocess.PIPE, text=True) as runner:
            # early moments matter most: they fall into start-up, units and first checkpoints
            patience = draw.uniform(1.0, max(4.0, seconds / 4)) if kills < KILLS else 900
            try:
                _, said = runner.communicate(timeout=patience)
                code = runner.returncode
            except subprocess.TimeoutExpired:
                runner.send_signal(signal.SIGKILL)
                kills += 1
    assert code == 0, said
    assert kills >= KILLS // 2
    assert not is_locked(tmp_path / "demo-ja")
    assert content(tmp_path / "demo-ja") == content(undisturbed)
    attempts = [
        read_manifest(path.parent).provenance["attempts"]
        for path in (tmp_path / "demo-ja").glob("*/manifest.json")
    ]
    assert sum(attempts) > len(attempts)


def test_empty_crawl_and_crawl_without_the_language_fail_clearly_and_go_on(tmp_path):
    (tmp_path / "empty.warc").write_bytes(b"")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "recipe: none\nlanguage: ja\nstages:\n  pages: {kind: corpus, source: empty.warc, language: ja}\n"
    )
    done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("manifest.json"))
    rows = [
        json.dumps({"text": "Nothing but English prose stands on this page. " * 20 + str(i)})
        for i in range(5)
    ]
    (tmp_path / "english.jsonl").write_text("\n".join(rows))
    recipe.write_text(recipe.read_text().replace("empty.warc", "english.jsonl"))
    done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "language" in done.stderr
    recipe.write_text(recipe.read_text().replace("language: ja}", "language: en, rules: none}"))
    done = subprocess.run(command(recipe, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
